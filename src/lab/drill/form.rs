//! Forming.

use std::time::Duration;

use serde_json::json;

use super::stage::{FORM, HEAL};
use super::{Options, Report, Stage, Unmet};

/// Three form, started in any order; in bad weather if asked.
pub(super) async fn form(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    let mut stage = Stage::build("form", options, |_| ()).await?;
    let result = async {
        let patience = if options.weather {
            stage.lost_and_stale();
            FORM * 3
        } else {
            FORM
        };
        stage.start_all().await?;
        stage.formed(patience).await?;
        stage.writes_go_on().await
    }
    .await;
    report.tell("weather", options.weather);
    stage.close(result, report).await
}

/// One machine's agent does not start. When the founders' patience is over the others found; when
/// it comes, it becomes a member through learner and promotion.
pub(super) async fn missing(options: &Options, report: &mut Report) -> Result<(), Unmet> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let patience = format!("{}s", PATIENCE.as_secs());
    let mut stage = Stage::build("form-missing", options, |settings| {
        settings.configuration.insert("founding.patience".into(), json!(patience));
        settings.configuration.insert("tick".into(), json!("1s"));
    })
    .await?;
    let result = async {
        if options.weather {
            stage.lost_and_stale();
        }
        let mut machines = stage.lab.control_plane();
        stage.rng.shuffle(&mut machines);
        let late = machines.pop().ok_or_else(|| Unmet::Broken("no machines".into()))?;
        for machine in &machines {
            stage.start(machine);
        }
        let began = tokio::time::Instant::now();
        stage.first_write(began, FORM).await?;
        stage.fault();
        stage.start(&late);
        let health = stage.healed(HEAL).await?;
        let access = crate::lab::cluster::Access::to(&stage.lab)
            .ok_or_else(|| Unmet::Broken("no certificates".into()))?;
        let seen = crate::lab::cluster::look(&late.client_url(), &access.tls).await?;
        if seen.cluster != health.cluster
            || !super::steps::executed(&late)?.iter().any(|s| s == "promoteMember")
        {
            return Err(Unmet::Broken(format!("{} did not join as a learner", late.identity().name)));
        }
        Ok(())
    }
    .await;
    stage.close(result, report).await
}
