-- Forgets messages that are settled, locked in the order in which they are noted.
--   $1  uuid[]  messages
DELETE FROM revertd.suspects s USING (
    SELECT message FROM revertd.suspects WHERE message = ANY ($1) ORDER BY message FOR UPDATE
) settled
WHERE s.message = settled.message
