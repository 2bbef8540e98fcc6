//! The nodes of a run, where they live, and what is done to them.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use highwater::setup::{CA_FILE, CONFIG_FILE, ClusterPlan, make_cluster};

use super::cgroup::{self, Cgroup};
use super::disk::Disk;
use super::fault::{Shape, Step};
use super::kind::{Kind, Need};
use super::load::{Places, Reach};
use super::net::{self, Carried, Namespace, Router};
use super::node::{Node, NodePlan, can_shift_clocks};
use super::scenario::{self, Scenario};
use crate::stop::stop;

/// Groups of clients: ours, and those of others.
const CLIENTS: usize = 2;

/// Kafka's port in namespaces, where every port is free.
const PORT: u16 = 9092;

/// What `make_cluster` adds to it for peers and metrics.
const PORTS_ABOVE: [u16; 3] = [0, 100, 200];

/// How long all nodes may take to be ready, and what else takes its time; timing decides nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// How often it is looked.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// What can be done to processes here.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    /// Why there are no namespaces, if there are none.
    pub(crate) no_network: Option<String>,
    disk: scenario::Disk,
    has_cgroups: bool,
    has_faketime: bool,
    has_strace: bool,
}

impl Means {
    /// Looks what this machine lets a scenario do.
    pub(crate) fn find(scenario: &Scenario) -> Means {
        cgroup::clean_up();
        Means {
            no_network: net::is_possible().err(),
            disk: scenario.disk,
            has_cgroups: cgroup::is_possible(),
            has_faketime: can_shift_clocks(),
            has_strace: scenario.portable && is_program("strace"),
        }
    }

    /// Whether a kind of fault can be made.
    pub(crate) fn allow(&self, kind: Kind) -> bool {
        match kind.needs() {
            Need::Nothing => true,
            Need::Network => self.no_network.is_none(),
            Need::Cgroup => self.has_cgroups,
            Need::Faketime => self.has_faketime,
            Need::Image => self.disk != scenario::Disk::Folder,
            Need::Ext4 => self.disk == scenario::Disk::Ext4,
            Need::Strace => self.has_strace,
        }
    }
}

fn is_program(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(name).exists())
}

/// A cluster of processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Before the namespaces, which are to end after them.
    nodes: Vec<Node>,
    router: Option<Router>,
    places: Places,
    reach: Reach,
}

impl Cluster {
    /// Makes the files of all nodes under `folder`, and what they live in. Nothing is started.
    pub(crate) fn make(
        scenario: &Scenario,
        means: &Means,
        binary: &Path,
        folder: &Path,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (homes, clients, router) = homes(scenario.nodes, means, seed)?;
        let plan = plan(scenario.nodes, router.is_some())?;
        let root = folder.join("cluster");
        let folders = make_cluster(&root, &plan)?;
        let disks = folder.join("disks");
        std::fs::create_dir_all(&disks)?;
        let mut nodes = Vec::new();
        for (id, (made, home)) in folders.iter().zip(homes).enumerate() {
            let name = format!("node-{id}");
            let node = NodePlan {
                id,
                binary: binary.to_owned(),
                config: made.join(CONFIG_FILE),
                options: options(scenario, router.is_some()),
                logs: folder.to_owned(),
                has_clock: scenario.kinds().any(|kind| kind == Kind::Clock) && means.has_faketime,
            };
            let disk = Disk::make(scenario.disk, &disks, &name, &made.join("data"))?;
            let wants_cgroup = scenario.kinds().any(|kind| kind.needs() == Need::Cgroup);
            let cgroup = (wants_cgroup && means.has_cgroups).then(|| Cgroup::new(&name));
            nodes.push(Node::new(node, home, disk, cgroup.transpose()?)?);
        }
        let reach = Reach {
            bootstrap: bootstrap(&plan),
            ca: root.join(CA_FILE),
        };
        let [ours, others] = clients;
        let places = Places { ours, others };
        Ok(Self {
            nodes,
            router,
            places,
            reach,
        })
    }

    /// Where clients live.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// How they reach the nodes.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// What became of the packets, if we carry them.
    pub(crate) fn carried(&self) -> Option<Carried> {
        self.router.as_ref().map(Router::carried)
    }

    /// Whether all nodes run and are ready.
    pub(crate) fn are_ready(&mut self) -> bool {
        self.nodes.iter_mut().all(Node::is_ready)
    }

    /// Starts all that do not run, and waits until they are ready.
    pub(crate) fn start_all(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.start()?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.are_ready() {
            if let Some(end) = self.ended().into_iter().next() {
                bail!("{end}, while all was well");
            }
            ensure!(Instant::now() < deadline, "the nodes do not become ready");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Nodes that have ended although nobody wanted it, in words.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let ended = self.nodes.iter_mut().enumerate().filter_map(|(id, node)| {
            let status = node.has_ended()?;
            Some(format!("node {id} has ended by itself: {status}"))
        });
        ended.collect()
    }

    /// Which nodes do not run, or are not ready.
    pub(crate) fn away(&mut self) -> Vec<usize> {
        let nodes = self.nodes.iter_mut().enumerate();
        nodes
            .filter_map(|(id, node)| (!node.is_ready()).then_some(id))
            .collect()
    }

    /// A step of a fault.
    pub(crate) fn apply(&mut self, fault: usize, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Kill(nodes) => self.kill(nodes),
            Step::Stop(node) => self.nodes[*node].ask_to_end()?,
            Step::Start(node) => self.nodes[*node].start()?,
            Step::Pause(node) => self.nodes[*node].pause(true)?,
            Step::Continue(node) => self.nodes[*node].pause(false)?,
            Step::CutPower(nodes, cut) => {
                let victims = nodes.iter().filter_map(|node| self.nodes[*node].pid());
                stop(&victims.collect::<Vec<_>>())?;
                for node in nodes {
                    self.nodes[*node].disk.cut_power(*cut)?;
                }
                self.kill(nodes);
                for node in nodes {
                    self.nodes[*node].disk.restore_power()?;
                }
            }
            Step::Fill(node) => self.nodes[*node].disk.fill()?,
            Step::Empty(node) => self.nodes[*node].disk.empty()?,
            Step::MakeReadOnly(node) => {
                self.nodes[*node].break_disk();
                self.nodes[*node].disk.make_read_only()?;
            }
            Step::FailSync(node) => self.nodes[*node].fail_sync()?,
            Step::Starve(node, percent) => self.nodes[*node].starve(*percent)?,
            Step::Descriptors(node, are_allowed) => {
                self.nodes[*node].allow_descriptors(*are_allowed)?;
            }
            Step::Clock(node, seconds) => self.nodes[*node].shift_clock(*seconds)?,
            Step::Spoil(spoilt) => self.router()?.spoil(fault, spoilt.clone()),
            Step::Mend => self.router()?.mend(fault),
        }
        Ok(())
    }

    fn router(&self) -> anyhow::Result<&Router> {
        self.router.as_ref().context("nobody carries packets")
    }

    /// First the signals: the second node is not to notice that the first is gone.
    fn kill(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.nodes[*node].send_kill();
        }
        for node in nodes {
            self.nodes[*node].reap();
        }
    }

    /// Whatever faults have left behind is undone; all nodes run.
    pub(crate) fn heal(&mut self) -> anyhow::Result<()> {
        if let Some(router) = &self.router {
            router.mend_all();
        }
        for node in &mut self.nodes {
            node.heal()?;
        }
        self.start_all()
    }

    /// Ends all nodes, well. Gives their data directories.
    pub(crate) fn stop(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        for node in &mut self.nodes {
            node.ask_to_end()?;
        }
        for node in &mut self.nodes {
            node.wait_for_end()?;
        }
        Ok(self.directories())
    }

    /// Ends all nodes that still run, however. Gives their data directories.
    pub(crate) fn kill_all(&mut self) -> Vec<PathBuf> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.kill(&all);
        self.directories()
    }

    fn directories(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|node| node.disk.data()).collect()
    }
}

type Homes = (
    Vec<Arc<Namespace>>,
    [Arc<Namespace>; CLIENTS],
    Option<Router>,
);

/// A namespace for each node and each group of clients, or one place for all.
fn homes(nodes: usize, means: &Means, seed: u64) -> anyhow::Result<Homes> {
    if means.no_network.is_some() {
        let home = Arc::new(Namespace::of_this_process("chaos-home")?);
        let clients = [Arc::clone(&home), Arc::clone(&home)];
        return Ok((vec![home; nodes], clients, None));
    }
    let (namespaces, router) = net::connect(nodes + CLIENTS, seed)?;
    let mut homes: Vec<_> = namespaces.into_iter().map(Arc::new).collect();
    let clients = homes.split_off(nodes);
    let clients = <[_; CLIENTS]>::try_from(clients).expect("as many as were asked for");
    Ok((homes, clients, Some(router)))
}

fn plan(nodes: usize, has_network: bool) -> anyhow::Result<ClusterPlan> {
    let (hosts, base_port) = match has_network {
        true => (
            (0..nodes).map(|node| net::address(node).into()).collect(),
            PORT,
        ),
        false => (
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            free_base_port(nodes)?,
        ),
    };
    Ok(ClusterPlan {
        nodes: u32::try_from(nodes)?,
        hosts,
        base_port,
    })
}

fn bootstrap(plan: &ClusterPlan) -> String {
    let port = |node: u32| match plan.hosts.len() {
        1 => plan.base_port + u16::try_from(node).expect("a few nodes"),
        _ => plan.base_port,
    };
    let hosts = plan.hosts.iter().cycle();
    let nodes = (0..plan.nodes).zip(hosts);
    let addresses: Vec<String> = nodes
        .map(|(node, host)| format!("{host}:{}", port(node)))
        .collect();
    addresses.join(",")
}

/// A port from which on all that the nodes need are free, below those that the system gives away.
fn free_base_port(nodes: usize) -> anyhow::Result<u16> {
    let nodes = u16::try_from(nodes)?;
    let is_free = |port: u16| {
        let address = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    let are_free = |base: &u16| {
        let mut all = PORTS_ABOVE
            .iter()
            .flat_map(|above| (0..nodes).map(move |node| above + node));
        all.all(|above| is_free(base + above))
    };
    let mut bases = std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).take(1_000);
    bases.find(are_free).context("no free ports")
}

/// The options of all nodes, those of the scenario last.
fn options(scenario: &Scenario, has_network: bool) -> Vec<String> {
    let mut options = Vec::new();
    if scenario.portable {
        options.push("node.storage=portable".to_owned());
    }
    if has_network {
        // Nobody else is in the namespaces.
        options.push("insecure_no_auth=true".to_owned());
    }
    options.extend(scenario.options.iter().cloned());
    options
}

/// How many nodes and clients there are.
pub(crate) fn shape(scenario: &Scenario) -> Shape {
    Shape {
        nodes: scenario.nodes,
        clients: CLIENTS,
    }
}
