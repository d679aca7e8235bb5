mod graph;
mod source;
#[test]
fn report() {
    let sources = source::all();
    let g = graph::Graph::new(&sources);
    for c in g.circles() {
        println!("CIRCLE {c:?}");
        for f in &c {
            for u in &g.uses[*f] {
                if c.contains(u.file.as_str()) {
                    println!("    {f} -> {} {}", u.file, u.item);
                }
            }
        }
    }
    for (f, us) in &g.uses {
        for u in us {
            let m = u.file.trim_end_matches(".rs");
            if u.file == "lib.rs" || f.starts_with(&format!("{m}/")) {
                println!("UP {f} -> {} {}", u.file, u.item);
            }
        }
    }
    let mut fe = std::collections::BTreeMap::<(String, String), Vec<String>>::new();
    let top = |f: &str| f.split(['/', '.']).next().unwrap().to_owned();
    for (f, us) in &g.uses {
        for u in us {
            if top(f) != top(&u.file) {
                fe.entry((top(f), top(&u.file)))
                    .or_default()
                    .push(format!("{f}->{}:{}", u.file, u.item));
            }
        }
    }
    for (k, v) in fe {
        println!("FOLDER {k:?} {} {:?}", v.len(), &v[..v.len().min(3)]);
    }
}
