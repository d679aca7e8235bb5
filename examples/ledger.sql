-- The ledger of the documents' examples: an org with a project and a billing account, a purchase
-- of 100 and four usages of 20. Run it once, after `revertd migrate`:
--   psql -q "$REVERTD_DATABASE__URL" -f examples/ledger.sql
INSERT INTO organizations (id, name) VALUES ('0a000000-0000-4000-8000-000000000001', 'acme');
INSERT INTO projects (id, name, org_id) VALUES
  ('0c000000-0000-4000-8000-000000000001', 'render', '0a000000-0000-4000-8000-000000000001');
INSERT INTO billing_customers (id, org_id, name, email) VALUES
  ('0b000000-0000-4000-8000-000000000001', '0a000000-0000-4000-8000-000000000001', 'Acme',
   'billing@acme.example');
-- A purchase: a credit of the customer and a debit of the platform.
INSERT INTO billing_transactions (id, account_id, type, source, amount, description) VALUES
  ('0e000000-0000-4000-8000-000000000001', '0b000000-0000-4000-8000-000000000001', 'credit',
   'system.buy', 100, 'credits'),
  ('0e000000-0000-4000-8000-000000000002', '00000000-0000-0000-0000-000000000000', 'debit',
   'system.buy', 100, 'credits');
-- Four usages: each is a debit of the customer and a credit of the platform. The ids of the
-- customer's entries end in 1 to 4.
INSERT INTO billing_transactions (id, account_id, type, source, amount, description)
SELECT ('0d000000-0000-4000-8000-00000000000' || n)::uuid,
       '0b000000-0000-4000-8000-000000000001'::uuid, 'debit', 'api', 20, 'frames'
FROM generate_series(1, 4) n
UNION ALL
SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 'credit', 'api', 20, 'frames'
FROM generate_series(1, 4);
