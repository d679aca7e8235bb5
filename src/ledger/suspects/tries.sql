-- The attempts of messages. A message without a row has none.
--   $1  uuid[]  messages
SELECT message, tries_together, tries_alone FROM revertd.suspects WHERE message = ANY ($1)
