//! `haulout serve`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::FutureExt;
use serde::Serialize;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{Context, Finish};
use crate::{
    cli::{
        args::ServeArgs,
        failure::Failure,
        open,
        options::{PageSettings, ServeSettings, StoreSettings},
        output::Message,
    },
    fleet::{Fleet, FleetOptions, Opener},
    repository::Access,
    store::{self, RetryPolicy, StoreUrl},
    web::{self, WebOptions},
};

/// Seconds for which a request of a look is repeated: the next look comes anyway, and nobody waits.
const LOOK_SECONDS: u64 = 20;

/// The page can be opened.
#[derive(Debug, Clone, Serialize)]
struct Listening {
    address: SocketAddr,
    url: String,
}

impl Message for Listening {
    const TYPE: &'static str = "listening";
}

/// Serves the page of a fleet until it is told to stop.
///
/// # Errors
/// When the settings are wrong, the store cannot be opened, or the address is taken.
pub async fn run(args: &ServeArgs, context: &Context) -> Result<Finish, Failure> {
    let settings = context.settle(ServeSettings::assemble(&context.layers, context.url(), args))?;
    let fleet = fleet(&settings.store, settings.refresh, context)?;
    // Whoever waits at a terminal hears of a wrong place at once.
    fleet.open().await?;
    let listener = listen(settings.page.listen).await?;
    tell(&listener, context)?;
    let router = web::router(fleet.clone(), None, web_options(&settings.page, context));
    let reading = read(fleet, context);
    web::serve(listener, router, context.stop.clone()).await;
    reading.abort();
    Ok(Finish::Done)
}

/// What lies at a place, which nobody reads yet and which need not be there yet.
///
/// # Errors
/// When a setting is wrong.
pub fn fleet(store: &StoreSettings, refresh: Option<Duration>, context: &Context) -> Result<Fleet, Failure> {
    let holder = open::keyholder(context)?;
    let retry = RetryPolicy::lasting(Duration::from_secs(LOOK_SECONDS));
    let (url, options) = (store.url.parse::<StoreUrl>()?, open::store_options(store, false, retry, None, context));
    let access = (!holder.is_empty()).then(|| Access { keys: Arc::new(holder), entropy: context.entropy() });
    let told = url.to_string();
    let opener: Opener = Arc::new(move || {
        let (url, options) = (url.clone(), options.clone());
        async move { store::open(&url, &options).await }.boxed()
    });
    Ok(Fleet::waiting(told, opener, FleetOptions { refresh, access, clock: context.clock() }))
}

/// Has `fleet` read and kept up to date until the command is told to stop.
pub fn read(fleet: Fleet, context: &Context) -> JoinHandle<()> {
    let stop = context.stop.clone();
    tokio::spawn(async move { fleet.run(stop).await })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let failed = |error| {
        Failure::of_io(format!("cannot listen on {address}"), &error)
            .with_hint("is another at work there? Give --listen")
    };
    TcpListener::bind(address).await.map_err(failed)
}

fn tell(listener: &TcpListener, context: &Context) -> Result<(), Failure> {
    let address = listener.local_addr().map_err(|error| Failure::of_io("cannot tell where it listens", &error))?;
    let listening = Listening { address, url: format!("http://{address}/") };
    if context.output.is_json() {
        context.output.json(&listening);
    } else {
        context.output.note(&format!("the page is at {}", listening.url));
    }
    Ok(())
}

/// How `settings` have a page served.
pub fn web_options(settings: &PageSettings, context: &Context) -> WebOptions {
    WebOptions {
        hosts: settings.hosts.clone(),
        token: settings.token.clone(),
        thresholds: settings.thresholds,
        price: settings.price,
        clock: context.clock(),
        entropy: context.entropy(),
    }
}
