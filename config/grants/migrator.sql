-- The role `migrator`, for `revertd migrate` on a database of its own (ledger.manage = true).
-- As a superuser: psql -X -v ON_ERROR_STOP=1 -f config/grants/migrator.sql URL
GRANT CREATE ON DATABASE billing TO migrator;
GRANT USAGE, CREATE ON SCHEMA public TO migrator;
