-- The role `clerk`, for `revertd dead-letters` and `status`.
-- psql -X -v ON_ERROR_STOP=1 -f config/grants/clerk.sql URL
GRANT USAGE ON SCHEMA public, revertd TO clerk;
GRANT SELECT ON revertd.interventions, revertd.intervention_letters, revertd.intervention_parts TO clerk;
GRANT INSERT (action, done_by, chosen, why, saved_to) ON revertd.interventions TO clerk;
GRANT INSERT ON revertd.intervention_letters TO clerk;
GRANT INSERT (intervention, part) ON revertd.intervention_parts TO clerk;
GRANT SELECT ON revertd.control TO clerk;  -- for `status`: whether the fleet is paused
GRANT SELECT ON revertd.outcomes TO clerk;  -- for `status` and `show`, as the next one
GRANT SELECT (id, account_id, type, source, amount, metadata, created_at) ON public.billing_transactions TO clerk;
