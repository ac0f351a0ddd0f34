//! Certificates that are replaced while a service runs.

use std::{fmt, mem, sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tracing::{info, warn};

use super::config::{Files, Material, Side};
use crate::ConfigError;

/// How often the files are read. Their contents count, not what the file system says of them: they may be symbolic links to
/// a folder that is itself replaced, as in Kubernetes.
const EVERY: Duration = Duration::from_secs(1);

/// The files of a server's side of TLS.
pub type ServerTls = Reloadable<ServerConfig>;
/// The files of a client's side of TLS.
pub type ClientTls = Reloadable<ClientConfig>;

/// A side of TLS, and the files that it was made from.
#[derive(Clone)]
pub struct Reloadable<T> {
    files: Files,
    material: Arc<Material>,
    made: Arc<T>,
}

impl<T> fmt::Debug for Reloadable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(formatter)
    }
}

impl<T: Side> Reloadable<T> {
    pub(super) fn open(files: Files) -> Result<Self, ConfigError> {
        let material = files.read()?;
        let made = Arc::new(T::make(&material)?);
        Ok(Self { files, material: Arc::new(material), made })
    }

    /// Whether the other side must show a certificate.
    pub(super) fn is_mutual(&self) -> bool {
        self.files.ca.is_some()
    }

    /// What is to be used for a new connection. A task keeps it as the files are, for as long as anybody looks at it.
    pub(super) fn follow(&self) -> watch::Receiver<Arc<T>> {
        let (latest, follower) = watch::channel(Arc::clone(&self.made));
        tokio::spawn(keep(latest, self.files.clone(), Arc::clone(&self.material)));
        follower
    }
}

async fn keep<T: Side>(latest: watch::Sender<Arc<T>>, files: Files, mut seen: Arc<Material>) {
    let mut changed = false;
    let mut throttle = None;
    loop {
        tokio::select! {
            () = latest.closed() => return,
            () = sleep(EVERY) => (),
        }
        let files = files.clone();
        // It fails only when the runtime ends.
        let Ok(read) = spawn_blocking(move || files.read()).await else { return };
        let made = match read {
            // A certificate and its key may be written one after the other: wait until nothing changes any more.
            Ok(found) if found != *seen => {
                (seen, changed) = (Arc::new(found), true);
                continue;
            }
            Ok(_) if !mem::take(&mut changed) => continue,
            read => read.and_then(|found| T::make(&found)),
        };
        match made {
            Ok(made) => {
                info!("the certificate was replaced");
                latest.send_replace(Arc::new(made));
                throttle = None;
            }
            Err(refused) if throttle.as_ref() != Some(&refused) => {
                warn!("{refused}; what was in use before stays in use");
                throttle = Some(refused);
            }
            Err(_) => (),
        }
    }
}
