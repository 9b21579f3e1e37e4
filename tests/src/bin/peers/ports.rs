//! Ports of this machine that are free.

use std::net::TcpListener;

/// So many, all different; free a moment ago.
///
/// # Errors
/// If the system gives none.
pub(crate) fn free<const COUNT: usize>() -> Result<[u16; COUNT], String> {
    let bind = |_| TcpListener::bind(("127.0.0.1", 0)).map_err(|error| format!("no free port: {error}"));
    let held = (0..COUNT).map(bind).collect::<Result<Vec<_>, _>>()?;
    let mut ports = [0; COUNT];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr().map_err(|error| error.to_string())?.port();
    }
    Ok(ports)
}
