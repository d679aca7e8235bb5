-- Deletes the rows of settled messages. They are locked in the order in which they are inserted.
--   $1  uuid[]  messages
DELETE FROM revertd.suspects s USING (
    SELECT message FROM revertd.suspects WHERE message = ANY ($1) ORDER BY message FOR UPDATE
) settled
WHERE s.message = settled.message
