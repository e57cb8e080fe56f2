"""Other programs' formats: COCO, FiftyOne and the MACCO TSV out, the MACCO TSV in."""
