//! Small servers that a test makes to behave as it wants: most of them badly.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use super::PATIENCE;

/// A server within the test, with a thread for each client. It ends with the test.
pub struct FakeServer {
    pub address: SocketAddr,
    clients: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// Each client is handed to `serve`; when that returns, the connection is closed.
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> FakeServer {
        FakeServer::start_at(Ipv4Addr::LOCALHOST.into(), serve)
    }

    /// The same, at this address.
    pub fn start_at(host: IpAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> FakeServer {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (ending, clients) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count, serve) = (Arc::clone(&ending), Arc::clone(&clients), Arc::new(serve));
        let thread = thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                count.fetch_add(1, Ordering::Relaxed);
                // No thread is left behind by a client that never goes.
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.set_write_timeout(Some(PATIENCE)).unwrap();
                client.set_nodelay(true).unwrap();
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(client));
            }
        });
        FakeServer { address, clients, ending, thread: Some(thread) }
    }

    /// How many clients have come.
    pub fn clients(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // It sleeps in accept.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Echoes as it should.
pub fn start_correct() -> FakeServer {
    FakeServer::start(|client| echo_with(client, |_| {}))
}

/// Echoes as it should, but never closes.
pub fn start_never_closing() -> FakeServer {
    let kept = Mutex::new(Vec::new());
    FakeServer::start(move |client| {
        kept.lock().unwrap().push(client.try_clone().unwrap());
        echo_with(client, |_| {});
    })
}

/// Echoes whatever comes, after `change` has had its way with each piece.
pub fn echo_with(mut client: TcpStream, mut change: impl FnMut(&mut Vec<u8>)) {
    let mut buffer = [0; 65_536];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let mut piece = buffer[..length].to_vec();
        change(&mut piece);
        if client.write_all(&piece).is_err() {
            break;
        }
    }
}

/// Receives so many bytes, and sends them back.
pub fn echo_bytes(client: &mut TcpStream, bytes: usize) {
    let mut buffer = vec![0; bytes];
    client.read_exact(&mut buffer).unwrap();
    client.write_all(&buffer).unwrap();
}

/// Receives so many bytes, and answers nothing.
pub fn read_and_ignore(client: &mut TcpStream, bytes: usize) {
    let _ = client.read_exact(&mut vec![0; bytes]);
}

/// Closes so that the client gets a reset.
pub fn reset(client: TcpStream) {
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
}

/// An address without a listener: the socket that holds it is only bound.
pub fn closed_port() -> (socket2::Socket, SocketAddr) {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Servers that rest on what only Linux does or tells.
#[cfg(target_os = "linux")]
pub mod of_linux {
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread::{self, JoinHandle};

    use prefork_echo::sys::socket::send_queue_len;

    use super::super::wait_until;
    use super::{closed_port, echo_bytes, echo_with};

    /// Echoes so many bytes, waits until the client's kernel has them, and closes with more
    /// unread: that is a reset.
    pub fn echo_and_leave(mut client: TcpStream, bytes: usize) {
        echo_bytes(&mut client, bytes);
        wait_until("all has arrived", || send_queue_len(&client) == Ok(0));
        // Unless that was all.
        let _ = client.read_exact(&mut [0]);
    }

    /// A server whose accept queue is full. On Linux a further client then waits in connect; the
    /// kernel tries again a second after the first time.
    pub struct FullQueue {
        listener: TcpListener,
        first: TcpStream,
        pub address: SocketAddr,
    }

    impl FullQueue {
        pub fn start() -> FullQueue {
            let (socket, address) = closed_port();
            socket.listen(0).unwrap();
            FullQueue { listener: socket.into(), first: TcpStream::connect(address).unwrap(), address }
        }

        pub fn wait_for_client(&self) {
            // SYN_SENT, in proc(5).
            let connecting = format!(" 0100007F:{:04X} 02 ", self.address.port());
            let sockets = || std::fs::read_to_string("/proc/net/tcp").unwrap();
            wait_until("a client waits in connect", || sockets().contains(&connecting));
        }

        /// Makes room, and echoes to the next client.
        pub fn serve(self) -> JoinHandle<()> {
            thread::spawn(move || {
                drop(self.first);
                self.listener.accept().unwrap();
                echo_with(self.listener.accept().unwrap().0, |_| {});
            })
        }
    }
}
