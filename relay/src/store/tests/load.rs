use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore]
async fn load() {
    const N: u32 = 20_000;
    let dir = std::env::var("LOAD_DIR").unwrap();
    let folder = tempfile::tempdir_in(dir).unwrap();
    let store = open(folder.path());
    let world = World { _folder: folder, store, now_ms: START_MS };
    let dev = |n: u32| {
        let mut id = Digest::of(&n.to_be_bytes()).0;
        id[0] = id[0];
        DeviceId(id[..16].try_into().unwrap())
    };
    let mut tasks = Vec::new();
    let row = world.row(1, Some(&[7; 92]));
    for n in 0..N {
        let one = Registering {
            tenant: tenant(),
            device: dev(n),
            row: row.clone(),
            same_token: false,
            now_ms: START_MS,
            audit: world.entry(),
        };
        let store = world.store.clone();
        tasks.push(tokio::spawn(async move {
            store.register_device(one).await.unwrap();
        }));
        if tasks.len() == 1000 {
            for t in tasks.drain(..) {
                t.await.unwrap();
            }
        }
    }
    for t in tasks.drain(..) {
        t.await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let cpu = || {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap();
        let f: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        (f[11].parse::<u64>().unwrap() + f[12].parse::<u64>().unwrap()) * 10
    };
    let began = std::time::Instant::now();
    let cpu0 = cpu();
    let next = Arc::new(std::sync::atomic::AtomicU32::new(0));
    for _ in 0..100 {
        let (store, next, entry) = (world.store.clone(), next.clone(), world.entry());
        tasks.push(tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n >= N {
                    return;
                }
                let id = Digest::of(&(n + N).to_be_bytes());
                let accepting = Accepting {
                    tenant: tenant(),
                    sender: lab(),
                    id: TransportId(id.0[..16].try_into().unwrap()),
                    digest: id,
                    expires_at: UnixTime(START_MS / 1000 + 3600 + u64::from(n)),
                    priority: Priority::Normal,
                    boxes: vec![AcceptingBox {
                        device: dev(n),
                        revoked: false,
                        digest: id,
                        value: BoxValue::new(&[3; 2300]),
                    }],
                    now_ms: START_MS + u64::from(n) / 10,
                    audit: entry.clone(),
                };
                assert!(matches!(store.accept(accepting).await.unwrap(), Accepted::New(_)));
            }
        }));
    }
    let lane = world.lane(Priority::Normal);
    let mut settled = 0;
    while settled < N as usize {
        let now_ms = START_MS + 1_000_000;
        let leases = world.store.lease(&lane, START_MS + 3000, 500).unwrap();
        if leases.is_empty() {
            tokio::time::sleep(Duration::from_micros(300)).await;
            continue;
        }
        settled += leases.len();
        let settling: Vec<_> =
            leases.into_iter().map(|lease| Settling { lease, result: PushResult::Pushed }).collect();
        world.store.settle(&lane, settling.into(), now_ms, Some(world.entry())).await.unwrap();
    }
    for t in tasks {
        t.await.unwrap();
    }
    let spent = cpu() - cpu0;
    eprintln!(
        "LOAD {} msgs {:.0}/s, cpu {} us each",
        N,
        f64::from(N) / began.elapsed().as_secs_f64(),
        spent * 1000 / u64::from(N)
    );
}
