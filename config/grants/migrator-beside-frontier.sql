-- The role `migrator`, for `revertd migrate` on Frontier's database (ledger.manage = false).
-- As a superuser: psql -X -v ON_ERROR_STOP=1 -f config/grants/migrator-beside-frontier.sql URL
GRANT CREATE ON DATABASE billing TO migrator;
-- The owner of billing_transactions. It may be revoked after `revertd migrate`.
GRANT frontier TO migrator;
