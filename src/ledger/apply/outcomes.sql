-- outcomes: the stored outcomes with these ids.
--   $1 id uuid[]
SELECT o.id, o.content, o.refusal, o.refusal_metadata, o.org_id, o.account_id, o.decided_at,
    o.usage_amount, o.reverted_before + o.amount, o.transaction_id, o.platform_transaction_id,
    o.refusal_code, o.refusal_message
FROM unnest($1::uuid[]) AS r (id)
CROSS JOIN LATERAL (SELECT * FROM revertd.outcomes o WHERE o.id = r.id LIMIT 1) o
