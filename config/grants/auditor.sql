-- The role `auditor`, for `revertd verify` and `usages`.
-- psql -X -v ON_ERROR_STOP=1 -f config/grants/auditor.sql URL
GRANT USAGE ON SCHEMA public, revertd TO auditor;
GRANT SELECT ON public.billing_transactions TO auditor;
GRANT SELECT (id, org_id, deleted_at) ON public.billing_customers TO auditor;
GRANT SELECT ON revertd.outcomes, revertd.schema_history TO auditor;
-- For `usages`: the org, by its id or name.
GRANT SELECT (id, name, deleted_at) ON public.organizations TO auditor;
