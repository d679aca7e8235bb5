-- index: rows by the usage that they name, whoever wrote them and however they spell it. The only thing that revertd adds to
-- Frontier's tables, made of built-in functions alone, so that it needs no grant. A hash, since an index of texts costs
-- each entry three times as much; and of what is the same in every spelling.
CREATE INDEX CONCURRENTLY IF NOT EXISTS billing_transactions_revertd_idx
ON {ledger}.billing_transactions ({hash_of_reverted})
WHERE {indexed}
