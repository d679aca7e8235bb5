-- Subtracts attempts that did not end in a crash. Rows are locked in the order in which they are
-- inserted.
--   $1  uuid[]     messages
--   $2  integer[]  tries together, for each
--   $3  integer[]  tries alone, for each
UPDATE revertd.suspects s SET
    tries_together = greatest(s.tries_together - counted.together, 0),
    tries_alone = greatest(s.tries_alone - counted.alone, 0)
FROM (
    SELECT s.message, c.together, c.alone
    FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS c (message, together, alone)
    JOIN revertd.suspects s ON s.message = c.message
    ORDER BY s.message FOR UPDATE OF s
) counted
WHERE s.message = counted.message
