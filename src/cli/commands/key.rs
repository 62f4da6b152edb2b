//! `haulout key`.

use std::sync::Arc;

use super::{
    Context, Finish,
    table::{Column, Table},
};
use crate::{
    cli::{
        args::{KeyAddArgs, KeyArgs, KeyCommand, KeyListArgs, KeyRemoveArgs, KeyRotateArgs, NewKeyArgs, StoreArgs},
        failure::Failure,
        open,
        options::StoreSettings,
        report::{KeyChange, KeyLine, KeySummary},
    },
    format::{NewSlot, Wraps},
    repository::{Leftover, Locked, Repository, RepositoryError},
};

/// Adds, removes, lists or rotates keys.
///
/// # Errors
/// When the settings are wrong, the repository cannot be opened, or the change is refused.
pub async fn run(args: &KeyArgs, context: &Context) -> Result<Finish, Failure> {
    match &args.command {
        KeyCommand::Add(args) => add(args, context).await,
        KeyCommand::Remove(args) => remove(args, context).await,
        KeyCommand::List(args) => list(args, context).await,
        KeyCommand::Rotate(args) => rotate(args, context).await,
    }
}

fn settings(args: &StoreArgs, context: &Context) -> Result<StoreSettings, Failure> {
    context.settle(StoreSettings::assemble(&context.layers, context.url(), args))
}

/// Opens the repository, which must be sealed.
async fn sealed(args: &StoreArgs, context: &Context) -> Result<Arc<Repository>, Failure> {
    let settings = settings(args, context)?;
    let repository = open::repository(&settings, context).await?;
    if !repository.keyring().is_sealed() {
        let not = RepositoryError::NotSealed { url: settings.url };
        return Err(Failure { message: "the repository is not sealed and has no keys".to_owned(), ..not.into() });
    }
    Ok(repository)
}

async fn new_slot(args: &NewKeyArgs, wraps: Wraps, context: &Context) -> Result<NewSlot, Failure> {
    let holder = open::keyholder(context)?;
    let credential = holder.further(&context.layers, args, &*context.entropy()).await?;
    context.settle(Ok::<(), Failure>(()))?;
    Ok(NewSlot { credential, wraps, label: args.label.clone().unwrap_or_default() })
}

fn tell(change: KeyChange, context: &Context) -> Finish {
    let remains = change.remaining.is_some();
    context.output.summary(&KeySummary::Changed(change), KeySummary::text);
    if remains { Finish::Damaged } else { Finish::Done }
}

fn remaining(leftover: Option<Leftover>, context: &Context) -> Option<String> {
    leftover.map(|Leftover { object, reason }| {
        context.output.warn(&format!("{object} cannot be deleted: {reason}"));
        object
    })
}

async fn add(args: &KeyAddArgs, context: &Context) -> Result<Finish, Failure> {
    let repository = sealed(&args.store, context).await?;
    let wraps = if args.map { Wraps::Map } else { Wraps::All };
    let slot = repository.add_slot(&new_slot(&args.new, wraps, context).await?, &*context.clock()).await?;
    Ok(tell(KeyChange { added: Some(slot.id), removed: None, remaining: None }, context))
}

async fn remove(args: &KeyRemoveArgs, context: &Context) -> Result<Finish, Failure> {
    let repository = sealed(&args.store, context).await?;
    let remaining = remaining(repository.remove_slot(args.id).await?, context);
    let removed = remaining.is_none().then_some(args.id);
    Ok(tell(KeyChange { added: None, removed, remaining }, context))
}

async fn rotate(args: &KeyRotateArgs, context: &Context) -> Result<Finish, Failure> {
    let repository = sealed(&args.store, context).await?;
    let wraps = if repository.keyring().opens_data() { Wraps::All } else { Wraps::Map };
    let new = new_slot(&args.new, wraps, context).await?;
    let (slot, leftover) = repository.rotate_slot(&new, &*context.clock()).await?;
    let remaining = remaining(leftover, context);
    let removed = repository.slot().filter(|_| remaining.is_none());
    Ok(tell(KeyChange { added: Some(slot.id), removed, remaining }, context))
}

async fn list(args: &KeyListArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = settings(&args.store, context)?;
    let holder = open::keyholder(context)?;
    let store = open::store(&settings, false, context).await?;
    // No key is needed to list them.
    let (sealed, own, (slots, faults)) = if holder.is_empty() {
        let locked = Locked::open(store).await?;
        (locked.config().is_sealed(), None, locked.slots().await?)
    } else {
        let repository = open::unlocked(store, holder, context).await?;
        (true, repository.slot(), repository.slots().await?)
    };
    let lines: Vec<KeyLine> = slots.iter().map(|slot| KeyLine::of(slot, own)).collect();
    let output = &context.output;
    if output.is_json() {
        lines.iter().for_each(|line| output.json(line));
    } else if !lines.is_empty() {
        output.data(table(&lines, context).as_bytes());
    }
    for fault in &faults {
        output.warn(fault);
    }
    let summary = KeySummary::List { keys: lines.len() as u64, unreadable: faults.len() as u64, sealed };
    output.summary(&summary, KeySummary::text);
    Ok(if faults.is_empty() { Finish::Done } else { Finish::Damaged })
}

const COLUMNS: [Column; 6] = [
    Column { title: "KEY", right: false, drop: 0 },
    Column { title: "OPENS", right: false, drop: 0 },
    Column { title: "METHOD", right: false, drop: 1 },
    Column { title: "CREATED (UTC)", right: false, drop: 3 },
    Column { title: "USED NOW", right: false, drop: 2 },
    Column { title: "LABEL", right: false, drop: 0 },
];

fn table(lines: &[KeyLine], context: &Context) -> String {
    let cells = |line: &KeyLine| {
        let used = if line.in_use == Some(true) { "yes" } else { "" };
        // A label is text from the store: no control character of it reaches the terminal.
        let label: String = line.label.chars().filter(|letter| !letter.is_control()).collect();
        let created = line.created.to_string().replace('T', " ");
        vec![
            line.key_id.to_string(),
            line.wraps.to_owned(),
            line.method.to_owned(),
            created.trim_end_matches('Z').to_owned(),
            used.to_owned(),
            label,
        ]
    };
    let table = Table { columns: COLUMNS.to_vec(), rows: lines.iter().map(cells).collect() };
    let options = &context.output.options;
    table.text(options.columns, options.stdout, |_, _, cell| cell.to_owned()).0
}
