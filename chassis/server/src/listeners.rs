//! The two ports of a service.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::TcpListener;

use crate::StartError;

/// Where a service listens; port 0 stands for a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For its users or for the other services.
    pub public: SocketAddr,
    /// For those who watch it: see [`private`](crate::admin).
    pub private: SocketAddr,
}

impl Addresses {
    /// `public`, and any free port of the loopback interface as the private one.
    #[must_use]
    pub fn with_any_private(public: SocketAddr) -> Self {
        Self { public, private: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
    }
}

/// The bound listeners.
#[derive(Debug)]
pub struct Listeners {
    /// For its users or for the other services.
    pub public: TcpListener,
    /// For those who watch it.
    pub private: TcpListener,
    addresses: Addresses,
}

impl Listeners {
    /// Binds both addresses.
    ///
    /// # Errors
    ///
    /// [`StartError::Bind`], which names the address.
    pub async fn bind(addresses: Addresses) -> Result<Self, StartError> {
        let (public, public_address) = bind(addresses.public).await?;
        let (private, private_address) = bind(addresses.private).await?;
        let addresses = Addresses { public: public_address, private: private_address };
        Ok(Self { public, private, addresses })
    }

    /// What they are bound to.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok::<_, io::Error>((listener, address))
    };
    bound.await.map_err(|source| StartError::Bind { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use muse_telemetry::with_causes;

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = Listeners::bind(Addresses::with_any_private(any)).await.unwrap();
        let Addresses { public, private } = first.addresses();
        let taken =
            [(public, Addresses { public, private: any }), (private, Addresses { public: any, private })];
        for (taken, addresses) in taken {
            let refused = Listeners::bind(addresses).await.unwrap_err();
            assert!(with_causes(&refused).starts_with(&format!("cannot listen on {taken}: ")), "{refused}");
        }
    }
}
