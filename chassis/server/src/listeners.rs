//! The two ports of a service.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::TcpListener;

use crate::StartError;

/// The addresses on which a service listens; port 0 stands for a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For users or for the other services.
    pub public: SocketAddr,
    /// For operators: the [admin port](crate::admin).
    pub admin: SocketAddr,
}

impl Addresses {
    /// `public`, and a free port of the loopback interface as the admin port.
    #[must_use]
    pub fn with_any_admin(public: SocketAddr) -> Self {
        Self { public, admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
    }
}

/// The bound listeners.
#[derive(Debug)]
pub struct Listeners {
    /// For users or for the other services.
    pub public: TcpListener,
    /// For operators.
    pub admin: TcpListener,
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
        let (admin, admin_address) = bind(addresses.admin).await?;
        let addresses = Addresses { public: public_address, admin: admin_address };
        Ok(Self { public, admin, addresses })
    }

    /// The bound addresses.
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
    async fn bind_error_contains_the_address() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = Listeners::bind(Addresses::with_any_admin(any)).await.unwrap();
        let Addresses { public, admin } = first.addresses();
        let taken = [(public, Addresses { public, admin: any }), (admin, Addresses { public: any, admin })];
        for (taken, addresses) in taken {
            let error = Listeners::bind(addresses).await.unwrap_err();
            assert!(with_causes(&error).starts_with(&format!("cannot listen on {taken}: ")), "{error}");
        }
    }
}
