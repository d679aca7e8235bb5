//! Grants: which client may revert which org's usage. The statement reads the same table
//! (`migrations/V2__grants.sql`).

use jiff::Timestamp;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::config::Settings;
use crate::ledger::connection::connect::in_schema;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// The orgs whose usage a client may revert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One org.
    Org(Uuid),
    /// Every org, including future ones.
    EveryOrg,
}

impl Scope {
    fn org(self) -> Option<Uuid> {
        match self {
            Self::Org(org) => Some(org),
            Self::EveryOrg => None,
        }
    }
}

/// A stored grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The login that the broker authenticates.
    pub client: String,
    /// The orgs of the grant.
    pub scope: Scope,
    /// The name of the operator who granted it, as given by the operator.
    pub granted_by: String,
    /// The database role that wrote the row.
    pub granted_as: String,
    /// When it was granted, by the database's clock.
    pub granted_at: Timestamp,
}

/// The result of [`Grants::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// `false` if the client had the grant already, and nothing was changed.
    pub is_new: bool,
    /// Whether the ledger has the org; `None` if the role may not read orgs, or for every org.
    pub org_exists: Option<bool>,
}

/// The result of [`Grants::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// `false` if the client had no such grant.
    pub existed: bool,
    /// The client's remaining grants for single orgs.
    pub orgs_left: i64,
    /// Whether the client still has the grant for every org.
    pub every_org_left: bool,
}

/// A session that reads and writes grants.
pub struct Grants {
    session: Session,
    org_exists: String,
}

impl Grants {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached.
    pub async fn open(settings: &Settings) -> Result<Self, LedgerError> {
        let session = Session::open(settings).await?;
        let org_exists = in_schema(
            "SELECT EXISTS (SELECT FROM {ledger}.organizations \
             WHERE id = $1 AND deleted_at IS NULL)",
            settings,
        );
        Ok(Self {
            session,
            org_exists,
        })
    }

    /// Grants `scope` to `client` in the name of `by`, or else of the database role. It applies
    /// from the next batch on.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not write to the table.
    pub async fn add(
        &self,
        client: &str,
        scope: Scope,
        by: Option<&str>,
    ) -> Result<Added, LedgerError> {
        let org_exists = match scope {
            Scope::Org(org) => self.org_exists(org).await?,
            Scope::EveryOrg => None,
        };
        let (db, org) = (&self.session.client, scope.org());
        let statement = "INSERT INTO revertd.grants (client, org_id, granted_by)
             VALUES ($1, $2, coalesce($3, session_user)) ON CONFLICT DO NOTHING";
        let adding = async { db.execute(statement, &[&client, &org, &by]).await };
        let is_new = self.session.answered(adding).await? > 0;
        Ok(Added { is_new, org_exists })
    }

    /// Removes the grant of `scope` from `client`. It applies from the next batch on.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not write to the table.
    pub async fn remove(&self, client: &str, scope: Scope) -> Result<Removed, LedgerError> {
        let (db, org) = (&self.session.client, scope.org());
        let delete =
            "DELETE FROM revertd.grants WHERE client = $1 AND org_id IS NOT DISTINCT FROM $2";
        let removing = async { db.execute(delete, &[&client, &org]).await };
        let existed = self.session.answered(removing).await? > 0;
        let left =
            "SELECT count(org_id), count(*) > count(org_id) FROM revertd.grants WHERE client = $1";
        let looking = async { db.query_one(left, &[&client]).await };
        let left = self.session.answered(looking).await?;
        Ok(Removed {
            existed,
            orgs_left: left.get(0),
            every_org_left: left.get(1),
        })
    }

    /// The grants by client and org, filtered by `client` and `org` if they are given. A grant for
    /// every org matches each org.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read the table.
    pub async fn list(
        &self,
        client: Option<&str>,
        org: Option<Uuid>,
    ) -> Result<Vec<Grant>, LedgerError> {
        let db = &self.session.client;
        let statement =
            "SELECT client, org_id, granted_by, granted_as, granted_at FROM revertd.grants
             WHERE ($1::text IS NULL OR client = $1)
                 AND ($2::uuid IS NULL OR org_id = $2 OR org_id IS NULL)
             ORDER BY client, org_id NULLS FIRST";
        let looking = async { db.query(statement, &[&client, &org]).await };
        let rows = self.session.answered(looking).await?;
        let read = |row: &tokio_postgres::Row| Grant {
            client: row.get(0),
            scope: row
                .get::<_, Option<Uuid>>(1)
                .map_or(Scope::EveryOrg, Scope::Org),
            granted_by: row.get(2),
            granted_as: row.get(3),
            granted_at: row.get(4),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Whether the org exists; `None` if the role may not read the orgs. Granting needs no right to
    /// read them.
    async fn org_exists(&self, org: Uuid) -> Result<Option<bool>, LedgerError> {
        let db = &self.session.client;
        let found = self.session.answered(async {
            match db.query_one(&self.org_exists, &[&org]).await {
                Ok(row) => Ok(Some(row.get(0))),
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
                Err(error) => Err(error),
            }
        });
        found.await
    }
}
