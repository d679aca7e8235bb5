-- usage_accounts: the accounts of an org, or one account, whose usages a request can name. No row
-- if the org or the account does not exist, or is deleted. The platform's own account is no
-- customer's.
--   $1  org       uuid  NULL if the org is given by its name or not at all; the next two likewise
--   $2  org_name  text
--   $3  account   uuid
--   $4  platform  uuid  the platform's own account
SELECT ARRAY(
    SELECT c.id FROM {ledger}.billing_customers c
    WHERE c.org_id = o.id AND c.deleted_at IS NULL AND c.id <> $4::uuid
        AND ($3::uuid IS NULL OR c.id = $3)
) AS accounts
FROM {ledger}.organizations o
WHERE o.deleted_at IS NULL AND (o.id = $1::uuid OR o.name = $2::text OR o.id = (
    SELECT c.org_id FROM {ledger}.billing_customers c
    WHERE c.id = $3 AND c.deleted_at IS NULL AND c.id <> $4
))
