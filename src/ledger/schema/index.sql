-- index: rows by the usage that they name, for every writer and every spelling. It is the only
-- object that revertd adds to Frontier's tables. It uses built-in functions only, so it needs no
-- grant. It holds a hash, because an index of texts costs each entry three times as much, and the
-- hash is of the part that is the same in every spelling.
CREATE INDEX CONCURRENTLY IF NOT EXISTS billing_transactions_revertd_idx
ON {ledger}.billing_transactions ({hash_of_reverted})
WHERE {indexed}
