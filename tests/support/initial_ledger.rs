//! The ledger before the requests: orgs, accounts and postings, which the model knows and the
//! database gets.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::model::{Content, Policy};

/// When Frontier wrote, so many minutes ago: after the usages, as events tell it.
fn frontiers_time(minutes: i64) -> String {
    let at = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
    revertd::domain::event::text_of(at)
}

/// The rows of the ledger.
#[derive(Clone, Debug)]
pub struct InitialLedger {
    pub policy: Policy,
    pub orgs: Vec<Uuid>,
    /// Id and org.
    pub projects: Vec<(Uuid, Uuid)>,
    /// The oldest first.
    pub accounts: Vec<Account>,
    /// Deleted ones: in the database, and not there for any request.
    pub deleted: Vec<Account>,
    pub postings: HashMap<Uuid, Posting>,
}

#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub id: Uuid,
    pub org: Uuid,
    pub active: bool,
}

/// An entry on a customer's account.
#[derive(Clone, Debug)]
pub struct Posting {
    pub account: Uuid,
    pub kind: Kind,
    pub amount: i64,
    pub source: Option<String>,
    pub description: Option<String>,
    pub metadata: Value,
    pub user: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `closed`: older than the window in which it can be reverted.
    Usage {
        closed: bool,
    },
    Purchase,
    /// Written by Frontier.
    Revert {
        of: Uuid,
        at: String,
    },
}

impl Posting {
    /// A usage, in one of the forms in which Frontier leaves them.
    pub fn usage(account: Uuid, amount: i64, form: u32) -> Self {
        let (source, metadata) = match form % 4 {
            0 => (
                Some("api.usage"),
                json!({"job": "render", "tags": [1, null]}),
            ),
            1 => (Some(""), json!({"revert_reason": "of another"})),
            2 => (None, json!("no object")),
            _ => (Some("api.usage"), Value::Null),
        };
        let some = !form.is_multiple_of(3);
        Self {
            account,
            kind: Kind::Usage { closed: false },
            amount,
            source: source.map(str::to_owned),
            description: some.then(|| "rendering".to_owned()),
            metadata,
            user: some.then(|| "user-1".to_owned()),
        }
    }

    pub fn purchase(account: Uuid, amount: i64) -> Self {
        Self {
            kind: Kind::Purchase,
            source: Some("system.buy".into()),
            ..Self::usage(account, amount, 0)
        }
    }

    /// A revert as Frontier writes one; `usage_id` is spelled as the caller of Frontier spelled it.
    pub fn revert(account: Uuid, usage: Uuid, usage_id: &str, amount: i64) -> Self {
        let at = frontiers_time(20);
        Self {
            kind: Kind::Revert { of: usage, at },
            source: Some("system.revert.api.usage".into()),
            metadata: json!({"revert_request_using": usage_id}),
            ..Self::usage(account, amount, 0)
        }
    }
}

impl InitialLedger {
    /// Lets Frontier give back `parts` of a usage; `ids` are those of its entries.
    pub fn give_back(&mut self, usage: Uuid, parts: &[i64], ids: &[Uuid]) {
        let account = self.postings[&usage].account;
        // The caller spelled the id as Frontier does, or in upper case, which Frontier does not
        // count.
        let usage_id = match usage.as_u128() % 2 {
            0 => usage.to_string(),
            _ => usage.to_string().to_uppercase(),
        };
        for ((part, id), minutes) in parts.iter().zip(ids).zip([20, 10]) {
            let at = frontiers_time(minutes);
            let revert = Posting {
                kind: Kind::Revert { of: usage, at },
                ..Posting::revert(account, usage, &usage_id, *part)
            };
            self.postings.insert(*id, revert);
        }
    }

    pub fn empty(policy: Policy) -> Self {
        Self {
            policy,
            orgs: Vec::new(),
            projects: Vec::new(),
            accounts: Vec::new(),
            deleted: Vec::new(),
            postings: HashMap::new(),
        }
    }

    /// The account that a request means, and its org.
    pub fn account_of(&self, content: &Content) -> Option<(Uuid, Uuid)> {
        let stated = match (content.org, content.project) {
            (Some(org), _) => Some(org),
            (None, Some(project)) => {
                let known = |(id, _): &&(Uuid, Uuid)| *id == project;
                Some(self.projects.iter().find(known)?.1)
            }
            (None, None) => None,
        };
        // A disabled account that is named may be given its usage back; else it is the newest
        // active one.
        let meant = |account: &&Account| match content.billing {
            Some(id) => account.id == id,
            None => account.active && Some(account.org) == stated,
        };
        let found = self.accounts.iter().rfind(meant)?;
        let fits = stated.is_none_or(|org| org == found.org);
        (fits && self.orgs.contains(&found.org)).then_some((found.id, found.org))
    }

    /// Puts all of it into the database, however much it is.
    pub async fn insert(&self, db: &Client) {
        let orgs =
            "INSERT INTO organizations (id, name) SELECT id, id::text FROM unnest($1::uuid[]) id";
        db.execute(orgs, &[&self.orgs]).await.expect("inserted");
        let (ids, owners): (Vec<_>, Vec<_>) = self.projects.iter().copied().unzip();
        let projects = "INSERT INTO projects (id, name, org_id) \
            SELECT id, id::text, org FROM unnest($1::uuid[], $2::uuid[]) p (id, org)";
        db.execute(projects, &[&ids, &owners])
            .await
            .expect("inserted");
        insert_accounts(db, &self.accounts, false).await;
        insert_accounts(db, &self.deleted, true).await;
        let all: Vec<_> = self.postings.iter().collect();
        for some in all.chunks(5000) {
            insert_postings(db, some).await;
        }
    }
}

async fn insert_accounts(db: &Client, accounts: &[Account], deleted: bool) {
    let insert = "INSERT INTO billing_customers (id, org_id, name, email, state, created_at, \
        deleted_at) \
        SELECT id, org, 'name', 'mail@example.com', CASE WHEN active THEN 'active' ELSE 'disabled' \
        END, \
            '2024-01-01T00:00:00Z'::timestamptz + nth * interval '1 second', CASE WHEN $4 THEN \
            now() END \
        FROM unnest($1::uuid[], $2::uuid[], $3::bool[]) WITH ORDINALITY a (id, org, active, nth)";
    let ids: Vec<_> = accounts.iter().map(|account| account.id).collect();
    let owners: Vec<_> = accounts.iter().map(|account| account.org).collect();
    let active: Vec<_> = accounts.iter().map(|account| account.active).collect();
    db.execute(insert, &[&ids, &owners, &active, &deleted])
        .await
        .expect("inserted");
}

async fn insert_postings(db: &Client, postings: &[(&Uuid, &Posting)]) {
    let ids: Vec<_> = postings.iter().map(|(id, _)| **id).collect();
    let column = |of: fn(&Posting) -> Option<&str>| -> Vec<_> {
        postings.iter().map(|(_, posting)| of(posting)).collect()
    };
    let accounts: Vec<_> = postings
        .iter()
        .map(|(_, posting)| posting.account)
        .collect();
    let amounts: Vec<_> = postings.iter().map(|(_, posting)| posting.amount).collect();
    let metadata: Vec<_> = postings
        .iter()
        .map(|(_, posting)| &posting.metadata)
        .collect();
    let types = column(|posting| match posting.kind {
        Kind::Usage { .. } => Some("debit"),
        Kind::Purchase | Kind::Revert { .. } => Some("credit"),
    });
    let times = column(|posting| match &posting.kind {
        Kind::Usage { closed: true } => Some("2024-01-02T00:00:00Z"),
        Kind::Revert { at, .. } => Some(at),
        Kind::Usage { closed: false } | Kind::Purchase => None,
    });
    let sources = column(|posting| posting.source.as_deref());
    let descriptions = column(|posting| posting.description.as_deref());
    let users = column(|posting| posting.user.as_deref());
    let insert = "INSERT INTO billing_transactions \
        (id, account_id, type, source, amount, description, metadata, user_id, created_at) \
        SELECT id, account, type, source, amount, description, metadata, user_id, \
            coalesce(at::timestamptz, now() - interval '1 hour') \
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::text[], \
        $7::jsonb[], \
            $8::text[], $9::text[]) \
            t (id, account, type, source, amount, description, metadata, user_id, at)";
    db.execute(
        insert,
        &[
            &ids,
            &accounts,
            &types,
            &sources,
            &amounts,
            &descriptions,
            &metadata,
            &users,
            &times,
        ],
    )
    .await
    .expect("inserted");
}
