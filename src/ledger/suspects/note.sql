-- Counts an attempt of each message. The order is fixed, so that two processes with copies of a
-- message do not deadlock.
--   $1  uuid[]   messages
--   $2  boolean  whether the try is alone
INSERT INTO revertd.suspects AS s (message, tries_together, tries_alone)
SELECT m, (NOT $2)::integer, $2::integer
FROM (SELECT DISTINCT unnest($1::uuid[]) AS m) noted ORDER BY m
ON CONFLICT (message) DO UPDATE SET
    tries_together = s.tries_together + excluded.tries_together,
    tries_alone = s.tries_alone + excluded.tries_alone,
    noted_at = now()
