//! `haulout serve`.

use std::{net::SocketAddr, sync::Arc};

use serde::Serialize;
use tokio::net::TcpListener;

use super::{Context, Finish};
use crate::{
    cli::{
        args::ServeArgs,
        failure::Failure,
        open,
        options::{PageSettings, ServeSettings},
        output::Message,
    },
    fleet::{Fleet, FleetOptions},
    model::Secret,
    repository::Access,
    store::RetryPolicy,
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
    let holder = open::keyholder(context)?;
    let retry = RetryPolicy::lasting(std::time::Duration::from_secs(LOOK_SECONDS));
    let store = open::patient_store(&settings.store, false, retry, None, context).await?;
    let access = (!holder.is_empty()).then(|| Access { keys: Arc::new(holder), entropy: context.entropy() });
    let options = FleetOptions { refresh: settings.refresh, access, clock: context.clock() };
    let fleet = Fleet::new(store, options);
    let listener = listen(settings.page.listen).await?;
    tell(&listener, context)?;
    let router = web::router(fleet.clone(), None, web_options(&settings.page, settings.page.token.clone(), context));
    let reading = tokio::spawn({
        let (fleet, stop) = (fleet, context.stop.clone());
        async move { fleet.run(stop).await }
    });
    web::serve(listener, router, context.stop.clone()).await;
    reading.abort();
    Ok(Finish::Done)
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

fn web_options(settings: &PageSettings, token: Option<Secret>, context: &Context) -> WebOptions {
    WebOptions {
        hosts: settings.hosts.clone(),
        token,
        thresholds: settings.thresholds,
        price: settings.price,
        clock: context.clock(),
        entropy: context.entropy(),
    }
}
