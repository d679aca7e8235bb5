//! The ledger: the demo fills it before the worker starts, and reads it afterwards.

use anyhow::{Context, Result};
use tokio_postgres::Client;
use uuid::Uuid;

/// The account of the platform's legs if `ledger.platform_account` is not set.
pub const PLATFORM: Uuid = Uuid::nil();

/// The amount of each of Acme's usages.
const AMOUNTS: [i64; 7] = [20, 30, 40, 50, 60, 70, 80];

/// The demo's own database.
pub struct Ledger(pub Client);

/// An org with a billing account.
#[derive(Clone, Copy)]
pub struct Customer {
    pub org: Uuid,
    pub account: Uuid,
}

/// The ids of the rows in the ledger.
pub struct Cast {
    pub acme: Customer,
    pub globex: Customer,
    /// A project of Acme's org.
    pub project: Uuid,
    /// Acme's purchase of credits.
    pub purchase: Uuid,
    /// Acme's usages.
    pub usages: [Uuid; 7],
    /// A usage of Globex.
    pub foreign_usage: Uuid,
}

/// The sum of credits minus the sum of debits.
pub struct Balance {
    pub name: &'static str,
    pub account: Uuid,
    pub amount: i64,
}

impl Cast {
    pub async fn seed(ledger: &Ledger) -> Result<Self> {
        let acme = ledger.customer("acme").await?;
        let globex = ledger.customer("globex").await?;
        let mut usages = [Uuid::nil(); AMOUNTS.len()];
        for (usage, amount) in usages.iter_mut().zip(AMOUNTS) {
            *usage = ledger.usage(acme.account, amount).await?;
        }
        ledger.purchase(globex.account, 500).await?;
        Ok(Self {
            project: ledger.project(acme.org, "acme-rendering").await?,
            purchase: ledger.purchase(acme.account, 1000).await?,
            foreign_usage: ledger.usage(globex.account, 20).await?,
            acme,
            globex,
            usages,
        })
    }

    pub async fn balances(&self, ledger: &Ledger) -> Result<Vec<Balance>> {
        let mut balances = Vec::new();
        for (name, account) in [
            ("Acme", self.acme.account),
            ("Globex", self.globex.account),
            ("the platform", PLATFORM),
        ] {
            let amount = ledger.balance(account).await?;
            balances.push(Balance {
                name,
                account,
                amount,
            });
        }
        Ok(balances)
    }
}

impl Ledger {
    /// The number of entries in the ledger.
    pub async fn entries(&self) -> Result<i64> {
        let query = "SELECT count(*) FROM billing_transactions";
        let row = self.0.query_one(query, &[]).await;
        Ok(row.context("cannot count the entries")?.get(0))
    }

    async fn balance(&self, account: Uuid) -> Result<i64> {
        let query = "SELECT coalesce(sum(CASE type WHEN 'credit' THEN amount ELSE -amount END), \
            0)::bigint FROM billing_transactions WHERE account_id = $1";
        let row = self.0.query_one(query, &[&account]).await;
        Ok(row.context("cannot read a balance")?.get(0))
    }

    async fn customer(&self, name: &str) -> Result<Customer> {
        let (org, account) = (Uuid::new_v4(), Uuid::new_v4());
        let statement = "WITH org AS (INSERT INTO organizations (id, name) VALUES ($1, $3)) \
                         INSERT INTO billing_customers (id, org_id, name, email) \
                         VALUES ($2, $1, $3, $3 || '@example.com')";
        let inserted = self.0.execute(statement, &[&org, &account, &name]).await;
        inserted.with_context(|| format!("cannot add the customer {name}"))?;
        Ok(Customer { org, account })
    }

    async fn project(&self, org: Uuid, name: &str) -> Result<Uuid> {
        let id = Uuid::new_v4();
        let statement = "INSERT INTO projects (id, org_id, name) VALUES ($1, $2, $3)";
        let inserted = self.0.execute(statement, &[&id, &org, &name]).await;
        inserted.with_context(|| format!("cannot add the project {name}"))?;
        Ok(id)
    }

    /// Inserts a debit on the customer's account, and a credit on the platform's.
    async fn usage(&self, account: Uuid, amount: i64) -> Result<Uuid> {
        self.entry(account, PLATFORM, "api.usage", amount)
            .await
            .map(|legs| legs.debit)
    }

    /// Inserts a credit on the customer's account, and a debit on the platform's.
    async fn purchase(&self, account: Uuid, amount: i64) -> Result<Uuid> {
        self.entry(PLATFORM, account, "system.buy", amount)
            .await
            .map(|legs| legs.credit)
    }

    async fn entry(&self, from: Uuid, to: Uuid, source: &str, amount: i64) -> Result<Legs> {
        let legs = Legs {
            debit: Uuid::new_v4(),
            credit: Uuid::new_v4(),
        };
        let statement = "INSERT INTO billing_transactions (id, account_id, type, source, amount, \
            description) VALUES ($1, $2, 'debit', $5, $6, 'rendering'), ($3, $4, 'credit', $5, \
            $6, 'rendering')";
        self.0
            .execute(
                statement,
                &[&legs.debit, &from, &legs.credit, &to, &source, &amount],
            )
            .await
            .with_context(|| format!("cannot add an entry ({source})"))?;
        Ok(legs)
    }
}

/// The ids of both legs of an entry.
struct Legs {
    debit: Uuid,
    credit: Uuid,
}
