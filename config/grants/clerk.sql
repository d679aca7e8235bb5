-- The role `clerk`, for `revertd dead-letters` and `status`.
-- psql -X -v ON_ERROR_STOP=1 -f config/grants/clerk.sql URL
GRANT USAGE ON SCHEMA public, revertd TO clerk;
GRANT SELECT ON revertd.interventions TO clerk;
GRANT SELECT ON revertd.intervention_letters TO clerk;
GRANT SELECT ON revertd.intervention_parts TO clerk;
GRANT INSERT (action, done_by, chosen, why, saved_to) ON revertd.interventions TO clerk;
GRANT INSERT ON revertd.intervention_letters TO clerk;
GRANT INSERT (intervention, part) ON revertd.intervention_parts TO clerk;
-- For `status`: whether the fleet is paused.
GRANT SELECT ON revertd.control TO clerk;
-- For `status` and `dead-letters show`: outcomes and entries.
GRANT SELECT ON revertd.outcomes TO clerk;
GRANT SELECT (id, account_id, type, source, amount, metadata, created_at)
  ON public.billing_transactions TO clerk;
