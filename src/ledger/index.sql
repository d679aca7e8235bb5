-- index: reverts by the usage that they name, whoever wrote them and however they spell it. The only thing
-- that revertd adds to Frontier's tables, made of built-in functions alone, so that it needs no grant.
CREATE INDEX CONCURRENTLY IF NOT EXISTS billing_transactions_revertd_idx
ON {ledger}.billing_transactions (
    replace(translate(lower(metadata ->> 'revert_request_using'), '{}-', ''), 'urn:uuid:', '')
)
WHERE type = 'credit' AND metadata ? 'revert_request_using'
