//! Fills Frontier's tables as Frontier does, and reads them.

use serde_json::{Value, json};
use uuid::Uuid;

use super::TestEnv;

pub const PLATFORM: Uuid = Uuid::nil();

/// Namespace of Frontier's ids of reverts.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x9674_16d0_716e_4308_b58f_2468_ac14_f20a);

/// An org with an account.
#[derive(Clone, Copy, Debug)]
pub struct Customer {
    pub org: Uuid,
    pub account: Uuid,
}

/// A row of `billing_transactions`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: Uuid,
    pub account: Option<Uuid>,
    pub kind: Option<String>,
    pub source: Option<String>,
    pub amount: i64,
    pub description: Option<String>,
    pub metadata: Value,
    pub user_id: Option<String>,
}

impl TestEnv {
    pub async fn customer(&self) -> Customer {
        let org = self.org().await;
        Customer {
            org,
            account: self.account(org).await,
        }
    }

    pub async fn org(&self) -> Uuid {
        let id = Uuid::new_v4();
        self.sql(&format!(
            "INSERT INTO organizations (id, name) VALUES ('{id}', '{id}')"
        ))
        .await;
        id
    }

    pub async fn project(&self, org: Uuid) -> Uuid {
        let id = Uuid::new_v4();
        let values = format!("('{id}', '{id}', '{org}')");
        self.sql(&format!(
            "INSERT INTO projects (id, name, org_id) VALUES {values}"
        ))
        .await;
        id
    }

    pub async fn account(&self, org: Uuid) -> Uuid {
        let id = Uuid::new_v4();
        let values = format!("('{id}', '{org}', 'name', 'mail@example.com', '{{}}', '{{}}')");
        self.sql(&format!(
            "INSERT INTO billing_customers (id, org_id, name, email, address, metadata) VALUES \
                {values}"
        ))
        .await;
        id
    }

    /// A usage: a debit on the customer's account, a credit on the platform's.
    pub async fn usage(&self, account: Uuid, amount: i64) -> Uuid {
        let id = Uuid::new_v4();
        let metadata = json!({"job": "render"});
        self.entry(id, account, "debit", "api.usage", amount, &metadata)
            .await;
        self.entry(
            Uuid::new_v4(),
            PLATFORM,
            "credit",
            "api.usage",
            amount,
            &metadata,
        )
        .await;
        id
    }

    /// A purchase of credits: the other way round.
    pub async fn purchase(&self, account: Uuid, amount: i64) -> Uuid {
        let id = Uuid::new_v4();
        self.entry(id, account, "credit", "system.buy", amount, &json!({}))
            .await;
        self.entry(
            Uuid::new_v4(),
            PLATFORM,
            "debit",
            "system.buy",
            amount,
            &json!({}),
        )
        .await;
        id
    }

    /// A revert as Frontier writes one, under the id that it makes of `name`.
    pub async fn frontier_revert(
        &self,
        name: &str,
        account: Uuid,
        usage: &str,
        amount: i64,
    ) -> Uuid {
        let id = Uuid::new_v5(&NAMESPACE, name.as_bytes());
        let metadata = json!({"revert_request_using": usage});
        self.entry(
            id,
            account,
            "credit",
            "system.revert.api.usage",
            amount,
            &metadata,
        )
        .await;
        let debit = Uuid::new_v4();
        self.entry(
            debit,
            PLATFORM,
            "debit",
            "system.revert.api.usage",
            amount,
            &metadata,
        )
        .await;
        id
    }

    pub async fn entry(
        &self,
        id: Uuid,
        account: Uuid,
        kind: &str,
        source: &str,
        amount: i64,
        metadata: &Value,
    ) {
        self.db
            .execute(
                "INSERT INTO billing_transactions \
                 (id, account_id, type, source, amount, description, metadata, user_id) \
                 VALUES ($1, $2, $3, $4, $5, 'rendering', $6, 'user-1')",
                &[&id, &account, &kind, &source, &amount, metadata],
            )
            .await
            .expect("inserted");
    }

    pub async fn sql(&self, statements: &str) {
        self.db
            .batch_execute(statements)
            .await
            .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    pub async fn count(&self, query: &str) -> i64 {
        self.db
            .query_one(query, &[])
            .await
            .unwrap_or_else(|error| panic!("{query}: {error:?}"))
            .get(0)
    }

    pub async fn rows(&self, condition: &str) -> Vec<Row> {
        let query = format!(
            "SELECT id, account_id, type, source, amount, description, metadata, user_id \
             FROM billing_transactions WHERE {condition} ORDER BY created_at, type, id"
        );
        let rows = self.db.query(&query, &[]).await.expect("read");
        rows.iter()
            .map(|row| Row {
                id: row.get(0),
                account: row.get(1),
                kind: row.get(2),
                source: row.get(3),
                amount: row.get(4),
                description: row.get(5),
                metadata: row.get(6),
                user_id: row.get(7),
            })
            .collect()
    }

    /// Entries that are reverts of `usage`: both legs of each.
    pub async fn reverts(&self, usage: Uuid) -> Vec<Row> {
        self.rows(&format!("metadata ->> 'revert_request_using' = '{usage}'"))
            .await
    }

    /// Credits less debits.
    pub async fn balance(&self, account: Uuid) -> i64 {
        self.count(&format!(
            "SELECT coalesce(sum(CASE type WHEN 'credit' THEN amount ELSE -amount END), 0)::bigint \
             FROM billing_transactions WHERE account_id = '{account}'"
        ))
        .await
    }

    /// Asserts that both legs of every applied outcome exist and are equal, that no usage is
    /// reverted beyond its amount, and that each entry has an outcome.
    pub async fn assert_ledger_is_sound(&self) {
        let lacking = self
            .count(
                "SELECT count(*) FROM revertd.outcomes o \
                 LEFT JOIN billing_transactions c ON c.id = o.transaction_id \
                 LEFT JOIN billing_transactions p ON p.id = o.platform_transaction_id \
                 WHERE o.refusal IS NULL AND (c.amount IS DISTINCT FROM o.amount \
                 OR p.amount IS DISTINCT FROM o.amount OR c.account_id IS DISTINCT FROM \
                 o.account_id \
                 OR c.type IS DISTINCT FROM 'credit' OR p.type IS DISTINCT FROM 'debit')",
            )
            .await;
        assert_eq!(lacking, 0, "outcomes without both legs");
        let orphans = self
            .count(
                "SELECT count(*) FROM billing_transactions t \
                 WHERE t.metadata ? 'revert_request_using' AND NOT EXISTS (SELECT FROM \
                 revertd.outcomes o \
                 WHERE t.id IN (o.transaction_id, o.platform_transaction_id))",
            )
            .await;
        assert_eq!(orphans, 0, "entries without an outcome");
        let exceeding = self
            .count(
                "SELECT count(*) FROM (SELECT u.id FROM billing_transactions u \
                 JOIN billing_transactions r ON r.metadata ->> 'revert_request_using' = u.id::text \
                 AND r.type = 'credit' GROUP BY u.id, u.amount HAVING sum(r.amount) > u.amount) x",
            )
            .await;
        assert_eq!(exceeding, 0, "usages given back more than they took");
    }
}
