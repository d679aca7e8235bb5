-- verify ids: the fields from which the id of each outcome follows.
--
-- {outcomes} is as in verify outcomes.
--   $1  first  uuid  outcomes from this id
--   $2  last   uuid  to this one
SELECT o.id, o.usage_id, o.content, o.client, o.message_id,
    coalesce(o.refusal = 'REQUEST_ID_REUSED', false) AS is_reuse
FROM {outcomes} o WHERE o.id >= $1 AND o.id <= $2
