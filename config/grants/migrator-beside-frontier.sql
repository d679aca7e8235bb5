-- The role `migrator`, for `revertd migrate` on Frontier's database (ledger.manage = false). As a superuser.
-- psql -X -v ON_ERROR_STOP=1 -f config/grants/migrator-beside-frontier.sql URL
GRANT CREATE ON DATABASE billing TO migrator;
GRANT frontier TO migrator;  -- the owner of billing_transactions; may be revoked after `revertd migrate`
