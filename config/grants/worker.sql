-- The role `worker`, for `revertd worker` with database.migrate_on_start = false, after
-- `revertd migrate`.
-- psql -X -v ON_ERROR_STOP=1 -f config/grants/worker.sql URL
GRANT USAGE ON SCHEMA public, revertd TO worker;
GRANT SELECT (id, name, deleted_at) ON public.organizations TO worker;
GRANT SELECT (id, name, org_id, deleted_at) ON public.projects TO worker;
GRANT SELECT (id, org_id, state, created_at, deleted_at) ON public.billing_customers TO worker;
GRANT SELECT, INSERT ON public.billing_transactions TO worker;
GRANT SELECT, INSERT ON revertd.outcomes TO worker;
GRANT SELECT (client, org_id) ON revertd.grants TO worker;
GRANT SELECT ON revertd.control TO worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON revertd.suspects TO worker;
GRANT SELECT ON revertd.schema_history TO worker;
