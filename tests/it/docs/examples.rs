//! What the pages have people type and write: commands, parameters, YAML.

use super::{names, pages, read, section};

/// The blocks of code of a page: the word after the fence, and the lines.
fn blocks(text: &str) -> Vec<(String, String)> {
    let (mut found, mut open) = (Vec::new(), None::<(String, String)>);
    for line in text.lines() {
        match (line.trim().strip_prefix("```"), &mut open) {
            (Some(word), None) => open = Some((word.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, lines))) => *lines += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// What stands in code's type within a line.
fn inline(text: &str) -> Vec<String> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The command lines of a block, continued lines joined, without prompts, comments and what follows a pipe.
fn command_lines(block: &str) -> Vec<String> {
    block
        .replace("\\\n", " ")
        .lines()
        .map(|line| line.trim().trim_start_matches("$ ").trim_start_matches("sudo "))
        .map(|line| line.split(['#', '|', '>']).next().unwrap().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

/// What is wrong with a command of `quorate`: a verb or an option that it does not have.
fn wrong_with(line: &str) -> Option<String> {
    use clap::CommandFactory as _;
    let mut command = quorate::cli::Cli::command();
    command.build();
    let mut command = &command;
    let mut words = line.split_whitespace().skip(1).peekable();
    while let Some(word) = words.next() {
        if let Some(option) = word.strip_prefix("--") {
            let option = option.split('=').next().unwrap();
            if !command.get_arguments().any(|known| known.get_long() == Some(option)) && option != "version" {
                return Some(format!("{} has no --{option}", command.get_name()));
            }
            // Its value, if it is given.
            words.next_if(|next| !next.starts_with("--"));
        } else if command.has_subcommands() {
            match command.find_subcommand(word) {
                Some(verb) => command = verb,
                None => return Some(format!("{} has no {word}", command.get_name())),
            }
        }
    }
    None
}

#[test]
fn a_command_that_there_is_not_is_told() {
    assert_eq!(wrong_with("quorate etcd restore --at newest"), None);
    assert_eq!(wrong_with("quorate plan --observed FILE --json"), None);
    assert_eq!(wrong_with("quorate config check /etc/x.yaml"), None);
    assert!(wrong_with("quorate etcd recover --from 2").is_some());
    assert!(wrong_with("quorate restore").is_some());
    assert_eq!(command_lines("$ sudo quorate status | head # x\na \\\n  b\n"), ["quorate status", "a    b"]);
}

#[test]
fn every_command_of_quorate_in_the_pages_is_one() {
    let mut commands = 0;
    for page in pages() {
        let text = read(&page);
        let in_blocks = blocks(&text).into_iter().flat_map(|(_, block)| command_lines(&block));
        let in_lines = inline(&text).into_iter().flat_map(|code| command_lines(&code));
        for line in in_blocks.chain(in_lines).filter(|line| line.starts_with("quorate ")) {
            commands += 1;
            if let Some(wrong) = wrong_with(&line) {
                panic!("{}: `{line}`: {wrong}", page.display());
            }
        }
    }
    assert!(commands > 60, "{commands} commands were found");
}

#[test]
fn every_word_of_make_in_the_pages_is_one() {
    let makefile = read("Makefile");
    let mut words = 0;
    for page in pages() {
        let text = read(&page);
        let in_blocks = blocks(&text).into_iter().flat_map(|(_, block)| command_lines(&block));
        for line in in_blocks.chain(inline(&text)) {
            let Some(word) = line.strip_prefix("make ").filter(|word| !word.contains(' ')) else { continue };
            words += 1;
            assert!(makefile.contains(&format!("\n{word}:")), "{}: `{line}`", page.display());
        }
    }
    assert!(words > 5, "{words} were found");
}

#[test]
fn parameters_of_the_template_and_variables_of_the_recipe_are_there() {
    let parameters = crate::permissions::template::Template::parameters();
    let recipe = read("packaging/image/quorate.pkr.hcl");
    let (mut of_template, mut of_recipe) = (0, 0);
    for page in pages() {
        let text = read(&page);
        for line in blocks(&text).into_iter().flat_map(|(_, block)| command_lines(&block)) {
            if let Some((_, after)) = line.split_once("--parameter-overrides ") {
                for word in after.split_whitespace().take_while(|word| !word.starts_with("--")) {
                    let name = word.split('=').next().unwrap();
                    of_template += 1;
                    assert!(parameters.iter().any(|known| known == name), "{}: {word}", page.display());
                }
            }
            for variable in line.split("-var ").skip(1).filter_map(|rest| rest.split('=').next()) {
                of_recipe += 1;
                assert!(
                    recipe.contains(&format!("variable \"{variable}\"")),
                    "{}: {variable}",
                    page.display()
                );
            }
        }
        // And those that are named in the text, with a value or without.
        for code in inline(&text) {
            let name = code.split('=').next().unwrap();
            let is_like_one =
                ["EtcdVolumes", "ApiClients", "Monitors", "WorkerPolicies", "ControlPlanePolicies"];
            assert!(!is_like_one.contains(&name) || parameters.iter().any(|known| known == name), "{name}");
        }
    }
    assert!(of_template > 5 && of_recipe > 2, "{of_template}, {of_recipe}");
    // Without the necessary ones, the stack of the first cluster is not made.
    let first = read("docs/first-cluster.md");
    for name in ["ClusterName", "Vpc", "Subnets", "Zones", "Image"] {
        assert!(first.contains(&format!("{name}=")), "{name}");
    }
}

#[test]
fn yaml_in_the_pages_is_what_it_is_meant_for() {
    use quorate::config::{Completeness, check_files};
    let (mut configurations, mut objects) = (0, 0);
    for page in pages() {
        for (word, block) in blocks(&read(&page)) {
            // Blocks in a list are indented as a whole.
            let indent = block.lines().next().unwrap_or_default().len()
                - block.lines().next().unwrap_or_default().trim_start().len();
            let lines: Vec<&str> = block.lines().map(|line| line.get(indent..).unwrap_or("")).collect();
            let block = lines.join("\n") + "\n";
            if word != "yaml" {
                continue;
            }
            let value: serde_json::Value = serde_saphyr::from_str(&block)
                .unwrap_or_else(|error| panic!("{}: {error}\n{block}", page.display()));
            if value.get("apiVersion").is_some() {
                objects += 1;
                assert!(value["kind"].is_string() && value["metadata"]["name"].is_string(), "{block}");
                continue;
            }
            // The kubelet's own words.
            if block.starts_with("# /etc/quorate/kubelet.d/") {
                continue;
            }
            configurations += 1;
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("fragment.yaml");
            std::fs::write(&path, &block).unwrap();
            check_files(&[path], Completeness::Fragments)
                .unwrap_or_else(|errors| panic!("{}: {errors}\n{block}", page.display()));
        }
    }
    assert!(configurations >= 3 && objects >= 3, "{configurations}, {objects}");
}

#[test]
fn settings_that_the_pages_name_are_settings() {
    let keys = read("docs/configuration.md");
    let known = names(section(&keys, "## Keys"));
    // A group of keys is named, too: `backups.` and what follows.
    let is_known = |path: &str| known.iter().any(|key| key == path || key.starts_with(&format!("{path}.")));
    for page in [
        "first-cluster",
        "operating",
        "troubleshooting",
        "disaster-recovery",
        "security",
        "zones-and-storage",
    ] {
        for code in inline(&read(format!("docs/{page}.md"))) {
            let path = code.split(": ").next().unwrap();
            let groups =
                ["etcd.", "kubernetes.", "leaving.", "launch.", "backups.", "founding.", "monitoring."];
            if groups.iter().any(|group| path.starts_with(group)) && !path.ends_with(".service") {
                assert!(is_known(path), "docs/{page}.md: {path}");
            }
        }
    }
}
