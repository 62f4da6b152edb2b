//! Who is told of what happens.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout;
use url::Url;

use super::{
    config::AgentConfig,
    courier::{self, Courier, Sent},
};

/// Time for what waits when the agent ends.
const LAST_TIME: Duration = Duration::from_secs(2);

/// The addresses and what goes there.
#[derive(Debug)]
pub struct Mail {
    addresses: (Vec<Url>, Vec<Url>),
    webhooks: Vec<Courier>,
    heartbeat: Vec<Courier>,
    sent: Arc<Sent>,
}

impl Mail {
    /// To the addresses of `config`.
    pub fn of(config: &AgentConfig) -> Mail {
        let sent = Arc::default();
        let mut mail = Mail { addresses: Default::default(), webhooks: Vec::new(), heartbeat: Vec::new(), sent };
        mail.readdress(config);
        mail
    }

    /// To other addresses from now on; what waits for those before still goes there.
    pub fn readdress(&mut self, config: &AgentConfig) {
        let addresses = (config.webhooks.clone(), config.heartbeat.clone());
        if addresses == self.addresses {
            return;
        }
        self.addresses = addresses;
        (self.webhooks, self.heartbeat) = (Vec::new(), Vec::new());
        if config.webhooks.is_empty() && config.heartbeat.is_empty() {
            return;
        }
        let client = match courier::client() {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "webhooks are told nothing");
                return;
            }
        };
        let to = |urls: &[Url], body| -> Vec<Courier> {
            urls.iter().map(|url| Courier::to(&client, url.clone(), body, None, &self.sent)).collect()
        };
        let couriers = (to(&config.webhooks, true), to(&config.heartbeat, false));
        (self.webhooks, self.heartbeat) = couriers;
    }

    /// Tells the webhooks.
    pub fn send(&self, body: &Arc<Vec<u8>>) {
        self.webhooks.iter().for_each(|courier| courier.send(body));
    }

    /// Tells the heartbeat's address that all is well.
    pub fn beat(&self) {
        let nothing = Arc::default();
        self.heartbeat.iter().for_each(|courier| courier.send(&nothing));
    }

    /// Messages that arrived, and that did not.
    pub fn sent(&self) -> (u64, u64) {
        (self.sent.delivered.load(Ordering::Relaxed), self.sent.failed.load(Ordering::Relaxed))
    }

    /// Sends what waits, for a moment.
    pub async fn finish(&mut self) {
        let couriers = self.webhooks.drain(..).chain(self.heartbeat.drain(..));
        let all = futures::future::join_all(couriers.map(Courier::finish));
        // Who hangs does not hold the end up.
        let _ = timeout(LAST_TIME, all).await;
    }
}
