//! The shell around kv-core: threads, sockets, files.

#[cfg(kv_mutants)]
compile_error!("planted bugs are for the simulator only: build the server without --cfg kv_mutants");

pub mod disk;

/// What a caught panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
