//! `revertd grants`

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::operator;
use super::output::{Output, print, print_json, print_pretty};
use super::terminal::{folded, visible, width};
use crate::broker;
use crate::config::Settings;
use crate::ledger::admin::grants::{Grant, Grants, Scope};

#[derive(Debug, Args)]
pub struct GrantsArgs {
    #[command(subcommand)]
    action: GrantsCommand,
}

#[derive(Debug, Subcommand)]
enum GrantsCommand {
    /// Allow a client to revert an org's usage, from the next batch on.
    Add {
        #[command(flatten)]
        grant: Named,
        /// Name of the operator who grants it, for the record. Default: the user of this shell.
        #[arg(long, value_name = "NAME", value_parser = operator::name)]
        by: Option<String>,
        /// Format of the result.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Remove a grant, from the next batch on. Exit status: 1 if there is no such grant.
    Remove {
        #[command(flatten)]
        grant: Named,
        /// Format of the result.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print the grants, sorted by client and org.
    List {
        /// Only grants of this client.
        #[arg(long, value_parser = client)]
        client: Option<String>,
        /// Only grants that apply to this org, including grants for every org.
        #[arg(long, value_name = "UUID")]
        org: Option<Uuid>,
        /// Format of the result.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Debug, Args)]
struct Named {
    /// Login that the broker authenticates: the user of the AMQP connection, or the client id at
    /// the gateway.
    #[arg(value_parser = client)]
    client: String,
    /// Id of the org, or '*' for every org.
    #[arg(value_parser = scope)]
    org: Scope,
}

pub async fn run(settings: &Settings, args: GrantsArgs) -> anyhow::Result<ExitCode> {
    let grants = Grants::open(settings).await?;
    match args.action {
        GrantsCommand::Add { grant, by, output } => {
            add(settings, &grants, &grant, by, output).await
        }
        GrantsCommand::Remove { grant, output } => remove(&grants, &grant, output).await,
        GrantsCommand::List {
            client,
            org,
            output,
        } => {
            let found = grants.list(client.as_deref(), org).await?;
            match output {
                Output::Text => print(&folded(&table(&found), width()))?,
                Output::Json => {
                    let found: Vec<_> = found.iter().map(object).collect();
                    print_pretty(&found)?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn add(
    settings: &Settings,
    grants: &Grants,
    Named { client, org }: &Named,
    by: Option<String>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let added = grants
        .add(client, *org, operator::by(by).as_deref())
        .await?;
    if added.org_exists == Some(false) {
        say!("revertd: the ledger has no such org at present; check its id");
    }
    if broker::knows_login(settings, client).await == Some(false) {
        say!(
            "revertd: the broker has no login {client} at present; check its spelling. A login is \
             created with: rabbitmqctl add_user {client}"
        );
    }
    match output {
        Output::Json => print_json(&json!({"added": added.is_new}))?,
        Output::Text if added.is_new => {
            print(&format!("{client} may revert usage of {}\n", scoped(*org)))?;
        }
        Output::Text => print(&format!(
            "{client} already may revert usage of {}\n",
            scoped(*org)
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(
    grants: &Grants,
    Named { client, org }: &Named,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let removed = grants.remove(client, *org).await?;
    if output == Output::Json {
        print_json(&json!({"removed": removed.existed}))?;
    } else if removed.existed {
        print(&format!(
            "{client} has no grant for {} any more\n",
            scoped(*org)
        ))?;
    }
    if removed.every_org_left {
        say!(
            "revertd: {client} still has a grant for every org; remove it with: \
             revertd grants remove {client} '*'"
        );
    } else if removed.orgs_left > 0 && *org == Scope::EveryOrg {
        let left = removed.orgs_left;
        say!(
            "revertd: {client} still has grants for single orgs ({left}); \
             see: revertd grants list --client {client}"
        );
    }
    if !removed.existed {
        bail!("{client} has no grant for {}", scoped(*org));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(grants: &[Grant]) -> String {
    if grants.is_empty() {
        return "no grants\n".into();
    }
    let mut text = format!("{:<36}  {:<20}  CLIENT (GRANTED BY)\n", "ORG", "SINCE");
    for grant in grants {
        let org = match grant.scope {
            Scope::Org(org) => org.to_string(),
            Scope::EveryOrg => "*".into(),
        };
        let since = grant.granted_at.strftime("%Y-%m-%dT%H:%M:%SZ");
        let (client, by) = (visible(&grant.client), visible(&grant.granted_by));
        let _ = writeln!(text, "{org:<36}  {since:<20}  {client} ({by})");
    }
    text
}

fn object(grant: &Grant) -> Value {
    json!({
        "client": grant.client,
        "org": match grant.scope {
            Scope::Org(org) => org.to_string(),
            Scope::EveryOrg => "*".into(),
        },
        "granted_by": grant.granted_by,
        "granted_as": grant.granted_as,
        "granted_at": grant.granted_at,
    })
}

fn scoped(scope: Scope) -> String {
    match scope {
        Scope::Org(org) => format!("org {org}"),
        Scope::EveryOrg => "every org".into(),
    }
}

fn client(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err("must be a login of 1 to 255 bytes without control characters".into());
    }
    Ok(text.to_owned())
}

fn scope(text: &str) -> Result<Scope, String> {
    if text == "*" {
        return Ok(Scope::EveryOrg);
    }
    // A request must spell a UUID with hyphens too.
    let hyphenated = text.len() == 36;
    let parsed = text.parse().ok().filter(|_| hyphenated);
    parsed
        .map(Scope::Org)
        .ok_or_else(|| "must be an org's id, a hyphenated UUID, or '*' for every org".into())
}
