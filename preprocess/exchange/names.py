"""What exports call the images of a store."""

import hashlib
import re
from pathlib import PurePosixPath
from typing import Any, Final

import duckdb

# Samples with whether their image is a part of the shard's file (a tar, a Parquet table) and has no name of its own.
IMAGES: Final = """
    SELECT samples.*, "offset" IS NOT NULL OR source = input->>'url' AS packed, input->>'format' AS format
    FROM samples JOIN shards USING (shard)"""
LONGEST: Final = 200  # bytes of a made name: most file systems take 255


class Names:
    """Names of images, one for each: the user's own where the image is a file, else one made of its id."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """The connection has the store's views."""
        twice = f"SELECT member FROM ({IMAGES}) WHERE NOT packed GROUP BY 1 HAVING count(DISTINCT source) > 1"
        self._twice = {member for (member,) in connection.execute(twice).fetchall()}

    def __call__(self, row: dict[str, Any]) -> str:
        """The name of the image of a row of IMAGES: a path as its table gives it, where that means one file."""
        if row["packed"]:
            return made_name(row)
        return str(row["source"] if row["member"] in self._twice else row["member"] or row["source"])


def made_name(row: dict[str, Any]) -> str:
    """A file name out of dataset, shard and key, which no other image of any store has, and any file system takes."""
    # Underscores part the three: the key may have its own, as it comes last.
    name = "_".join((_plain(row["dataset"], "_"), _plain(row["shard"], "_"), _plain(row["key"])))
    if len(name.encode()) > LONGEST:
        digest = hashlib.sha256(name.encode()).hexdigest()[:32]
        name = name.encode()[: LONGEST - 33].decode(errors="ignore") + f"-{digest}"
    suffix = PurePosixPath(row["member"] or row["source"]).suffix
    return name + (suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,5}", suffix) else ".jpg")


def _plain(text: str, also: str = "") -> str:
    """Text with what a file name cannot hold, or what parts it from others, as %XX."""
    return re.sub(rf'[/\\%:*?"<>|\x00-\x1f\x7f{also}]', lambda found: f"%{ord(found[0]):02X}", text)
