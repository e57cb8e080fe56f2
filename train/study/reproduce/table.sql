-- The columns of the authors' table from item-level files alone, by the raw scores.
-- duckdb -init table.sql, then: FROM figures ORDER BY ALL;
CREATE OR REPLACE TEMP VIEW items AS
    SELECT *, split_part(filename, '/', -4) AS run, split_part(filename, '/', -3) AS activation
    FROM read_parquet($items, filename = true);

-- Option 1 is right. Strict: a tie is wrong. Lenient: a tie goes to the right one, as an argmax has it.
CREATE OR REPLACE TEMP VIEW answered AS
    SELECT run, activation, benchmark, subset, category,
           CASE WHEN status = 'ok' THEN (scores[1] > list_max(scores[2:]))::INTEGER END AS strict,
           CASE WHEN status = 'ok' THEN (scores[1] >= list_max(scores[2:]))::INTEGER END AS lenient
    FROM items;
CREATE OR REPLACE TEMP VIEW subsets AS
    SELECT run, activation, benchmark, subset, 100 * avg(strict) AS strict, 100 * avg(lenient) AS lenient
    FROM answered GROUP BY ALL;
CREATE OR REPLACE TEMP VIEW classes AS
    SELECT run, activation, benchmark, category, count(*) AS items, 100 * avg(strict) AS strict
    FROM answered GROUP BY ALL;

-- Weights of the parts of a column that is a mean of subsets.
CREATE OR REPLACE TEMP VIEW weights AS
    FROM (VALUES
        ('ARO Order', 'coco_order', 'coco', 1/2), ('ARO Order', 'flickr30k_order', 'flickr30k', 1/2),
        ('SugarCrepe Rel', 'sugarcrepe', 'replace_rel', 1),
        ('SugarCrepe Att', 'sugarcrepe', 'add_att', 1/3), ('SugarCrepe Att', 'sugarcrepe', 'replace_att', 1/3),
        ('SugarCrepe Att', 'sugarcrepe', 'swap_att', 1/3),
        ('VL-CheckList Rel', 'vlchecklist', 'rel action hake', 1/6),
        ('VL-CheckList Rel', 'vlchecklist', 'rel action swig', 1/6),
        ('VL-CheckList Rel', 'vlchecklist', 'rel action vg', 1/6),
        ('VL-CheckList Rel', 'vlchecklist', 'rel spatial vg', 1/2),
        ('VALSE Rel', 'valse', 'actant-swap', 1/4), ('VALSE Rel', 'valse', 'action-replacement', 1/4),
        ('VALSE Rel', 'valse', 'relations', 1/2)
    ) AS w("column", benchmark, subset, weight)
    UNION ALL
    SELECT 'VL-CheckList Att', 'vlchecklist', concat('att ', kind, ' ', source), 1/10
    FROM (SELECT unnest(['action', 'color', 'material', 'size', 'state']) AS kind),
         (SELECT unnest(['vaw', 'vg']) AS source)
    UNION ALL
    SELECT 'What''s Up', 'whatsup', unnest(['A', 'B', 'COCO one', 'COCO two', 'GQA one', 'GQA two']), 1/6
    UNION ALL
    SELECT 'What''s Up, as the authors'' code counts', 'whatsup',
           unnest(['A', 'B', 'COCO one', 'COCO two', 'GQA one', 'COCO two']), 1/6;

-- A mean of which a part is missing is none.
CREATE OR REPLACE TEMP VIEW figures AS
    SELECT run, activation, "column",
           CASE WHEN count(value) = any_value(parts) THEN sum(weight * value) END AS percent
    FROM (SELECT run, activation, "column", weight,
                 CASE WHEN benchmark IN ('coco_order', 'flickr30k_order', 'whatsup') THEN lenient ELSE strict END AS value
          FROM subsets JOIN weights USING (benchmark, subset))
    JOIN (SELECT "column", count(*) AS parts FROM weights GROUP BY ALL) USING ("column")
    GROUP BY ALL
    UNION ALL
    SELECT run, activation, 'ARO Rel', CASE WHEN count(strict) = count(*) THEN avg(strict) END
    FROM classes WHERE benchmark = 'aro_relation' AND category NOT IN ($symmetric) GROUP BY ALL
    UNION ALL
    SELECT run, activation, 'ARO Rel, as the authors'' code counts', CASE WHEN count(strict) = count(*) THEN avg(strict) END
    FROM classes WHERE benchmark = 'aro_relation' AND category NOT IN ($dropped) GROUP BY ALL
    UNION ALL
    SELECT run, activation, 'ARO Att', CASE WHEN count(strict) = count(*) THEN avg(strict) END
    FROM classes WHERE benchmark = 'aro_attribution' AND items >= 25 GROUP BY ALL;
