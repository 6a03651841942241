//! Files of the apps' clients, looked at when somebody asks and every minute.

use std::sync::Arc;
use std::time::Duration;

use sealpost_service::reload::ReloadRequests;
use sealpost_service::shutdown::Shutdown;
use tokio::time::MissedTickBehavior;

use super::metrics::ReloadMetrics;
use super::{App, Pusher};
use crate::provider::{Followed, Look};

impl Pusher {
    /// Starts to follow the files of the apps' clients, until `shutdown` begins.
    pub fn follow_files(&self, mut requests: ReloadRequests, shutdown: Shutdown) {
        let (apps, metrics) = (self.apps.clone(), self.metrics.reloads());
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(async move {
            loop {
                let look = tokio::select! {
                    () = requests.next() => Look::Asked,
                    _ = ticks.tick() => Look::Regular,
                    () = shutdown.begun() => return,
                };
                let (apps, metrics) = (apps.clone(), metrics.clone());
                // Reads files. A panic in it has been reported; the next look may do better.
                let _ = tokio::task::spawn_blocking(move || look_at_all(&apps, look, &metrics)).await;
            }
        });
    }
}

fn look_at_all(apps: &[Arc<App>], look: Look, metrics: &ReloadMetrics) {
    for app in apps {
        match app.client.follow(look) {
            Ok(Followed::Same) => {}
            Ok(Followed::Replaced) => {
                tracing::info!(app = app.name, "the provider client was made anew from its files");
                metrics.replaced(&app.name);
                // A credential that failed may be another one now.
                app.credential.succeeded();
            }
            Err(error) => {
                tracing::error!(%error, app = app.name, "its files make no client; the present one serves");
                metrics.refused(&app.name);
            }
        }
    }
}

/// How often the file system is asked whether files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
