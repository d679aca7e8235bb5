-- The role `operator`, for `revertd grants`, `pause` and `resume`.
-- psql -X -v ON_ERROR_STOP=1 -f config/grants/operator.sql URL
GRANT USAGE ON SCHEMA public, revertd TO operator;
GRANT SELECT, DELETE ON revertd.grants TO operator;
GRANT INSERT (client, org_id, granted_by) ON revertd.grants TO operator;
GRANT SELECT, INSERT (paused, why, changed_by) ON revertd.control TO operator;
-- To warn of an org that does not exist.
GRANT SELECT (id, deleted_at) ON public.organizations TO operator;
