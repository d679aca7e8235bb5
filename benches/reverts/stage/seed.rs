//! Fills the ledger of a stage: orgs, accounts, a usage for each request, and older rows.

use anyhow::Result;
use revertd::domain::request::identity;
use uuid::Uuid;

use super::Stage;
use crate::deadline::{LONG, within};
use crate::load::Load;
use crate::process;

/// From this number of rows on, the indexes are built after the rows, which takes minutes instead
/// of an hour.
const MANY: u32 = 1_000_000;

impl Stage {
    /// Inserts accounts, and a usage with both legs for each request.
    pub async fn seed(&self, load: Load) -> Result<()> {
        self.seed_accounts(load.accounts).await?;
        self.seed_usages(load).await
    }

    /// Inserts accounts, each the default account of an org of its own.
    pub async fn seed_accounts(&self, accounts: u32) -> Result<()> {
        self.long(&format!(
            "INSERT INTO organizations (id, name) SELECT uuid_generate_v5(uuid_nil(), 'org' || i), i
             FROM generate_series(0, {accounts} - 1) i;
             INSERT INTO billing_customers (id, org_id, name, email)
             SELECT uuid_generate_v5(uuid_nil(), 'account' || i), uuid_generate_v5(uuid_nil(),
                 'org' || i), i, i
             FROM generate_series(0, {accounts} - 1) i"
        ))
        .await
    }

    /// Inserts a usage with both legs for each request.
    pub async fn seed_usages(&self, load: Load) -> Result<()> {
        let (first, last) = (load.first, load.first + load.requests - 1);
        let id = "uuid_generate_v5(uuid_nil(), i::text)";
        let row = load.in_a_row;
        let account = format!("(i + {row} - 1) / {row} % {}", load.accounts);
        self.long(&legs(id, &account, first, last)).await?;
        self.settle().await
    }

    /// Inserts `rows` rows of other usages. It must run before the usages of the requests are
    /// inserted, so that these rows are older.
    pub async fn seed_history(&self, rows: u32, accounts: u32) -> Result<()> {
        let account = format!("i % {accounts}");
        let history = legs("gen_random_uuid()", &account, 1, rows / 2);
        if rows < MANY {
            return self.long(&history).await;
        }
        self.long(
            "ALTER TABLE billing_transactions DROP CONSTRAINT billing_transactions_pkey;
             DROP INDEX billing_transactions_account_id_idx",
        )
        .await?;
        self.long(&history).await?;
        self.long(
            "SET maintenance_work_mem = '512MB';
             ALTER TABLE billing_transactions ADD CONSTRAINT billing_transactions_pkey
                 PRIMARY KEY (id);
             CREATE INDEX billing_transactions_account_id_idx ON billing_transactions (account_id);
             RESET maintenance_work_mem",
        )
        .await?;
        self.settle().await
    }

    /// Inserts usages that are fully reverted, with the rows that revertd would have written;
    /// builds the indexes afterwards.
    pub async fn seed_reverted(&self, usages: u32, accounts: u32) -> Result<()> {
        let id = "uuid_generate_v5(uuid_nil(), i::text)";
        self.long(
            "ALTER TABLE billing_transactions DROP CONSTRAINT billing_transactions_pkey;
             DROP INDEX billing_transactions_account_id_idx, billing_transactions_revertd_idx;
             ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_pkey;
             DROP INDEX revertd.outcomes_revert_no",
        )
        .await?;
        let account = format!("i % {accounts}");
        self.long(&legs(id, &account, 1, usages)).await?;
        self.long("CREATE TEMP TABLE identity (i integer, id uuid)")
            .await?;
        let numbers: Vec<i32> = (1..=i32::try_from(usages)?).collect();
        for some in numbers.chunks(10_000) {
            let of = |i: &i32| identity("bench", Some(&i.to_string()), Uuid::nil(), Uuid::nil());
            let ids: Vec<_> = some.iter().map(of).collect();
            let insert = "INSERT INTO identity SELECT * FROM unnest($1::integer[], $2::uuid[])";
            within(LONG, "seeding", self.db.execute(insert, &[&some, &ids])).await?;
        }
        self.long(&format!(
            "INSERT INTO revertd.outcomes (id, content, usage_id, org_id, account_id, amount,
                decided_at, usage_amount,
                 reverted_before, transaction_id, platform_transaction_id, revert_no, cumulative,
                     client, message_id)
             SELECT o.id, gen_random_uuid(), o.usage, uuid_generate_v5(uuid_nil(), 'org' || o.n),
                 o.account,
                 20, now(), 20, 0, o.entry, revertd.platform_leg(o.entry), 0, false, 'bench', o.i
             FROM (
                 SELECT u.*, revertd.entry_id(u.usage, 0, u.account) AS entry FROM (
                     SELECT i, id, i % {accounts} AS n, {id} AS usage,
                         uuid_generate_v5(uuid_nil(), 'account' || i % {accounts}) AS account
                     FROM identity OFFSET 0
                 ) u OFFSET 0
             ) o;
             DROP TABLE identity;
             INSERT INTO billing_transactions (id, account_id, type, source, amount, description,
                 metadata, created_at)
             SELECT leg.id, leg.account, leg.type, 'system.revert.api.usage', o.amount,
                 'Revert: a job',
                 jsonb_build_object('job', 'render', 'revert_request_using', o.usage_id),
                     o.decided_at
             FROM revertd.outcomes o CROSS JOIN LATERAL (VALUES
                 (o.transaction_id, o.account_id, 'credit'), (o.platform_transaction_id,
                     uuid_nil(), 'debit')
             ) leg (id, account, type)"
        ))
        .await?;
        self.long(
            "SET maintenance_work_mem = '512MB';
             ALTER TABLE billing_transactions ADD CONSTRAINT billing_transactions_pkey
                 PRIMARY KEY (id);
             CREATE INDEX billing_transactions_account_id_idx ON billing_transactions (account_id);
             ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_pkey PRIMARY KEY (id);
             CREATE UNIQUE INDEX outcomes_revert_no ON revertd.outcomes (usage_id, revert_no)
                 WHERE refusal IS NULL;
             RESET maintenance_work_mem",
        )
        .await?;
        let migrate = process::revertd(&self.environment, "migrate");
        process::to_its_end(migrate, LONG).await?;
        self.settle().await
    }

    /// Finishes pending work of the seed in PostgreSQL, so that it does not slow a run down.
    pub async fn settle(&self) -> Result<()> {
        self.long("VACUUM ANALYZE").await?;
        self.long("CHECKPOINT").await
    }

    pub async fn long(&self, statements: &str) -> Result<()> {
        within(LONG, "seeding", self.db.batch_execute(statements)).await
    }
}

/// The statement for usages with the platform's legs, as Frontier writes them. `id` and `account`
/// are expressions of the number `i`: the usage's id, and the number of its account.
fn legs(id: &str, account: &str, first: u32, last: u32) -> String {
    format!(
        "INSERT INTO billing_transactions (id, account_id, type, source, amount, description,
            metadata)
         SELECT {id}, uuid_generate_v5(uuid_nil(), 'account' || {account}), 'debit',
             'api.usage', 20,
             'a job', '{{\"job\": \"render\"}}' FROM generate_series({first}, {last}) i;
         INSERT INTO billing_transactions (id, account_id, type, source, amount, description,
             metadata)
         SELECT gen_random_uuid(), uuid_nil(), 'credit', 'api.usage', 20, 'a job',
             '{{\"job\": \"render\"}}'
         FROM generate_series({first}, {last}) i"
    )
}
