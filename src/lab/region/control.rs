//! The control API: how another process drives the region and learns what happens in it.
//!
//! JSON over HTTP on a loopback port, every field in camelCase. A refusal is
//! `{"code": …, "message": …}` with AWS's own status and code.
//!
//! | request | body → answer |
//! |---|---|
//! | `GET /v1/state` | → `region`, `nowMs`, `zones`, `instances`, `volumes`, `groups`, `balancers`, `pools` (with every target's health), `objects`, `faults`, `sequence` (of the last event) |
//! | `GET /v1/events?after=N&waitMs=M` | → `[{sequence, atMs, event, …}]`, waiting up to M ms for the first |
//! | `GET /v1/calls?after=N` | → the calls that reached the region |
//! | `POST /v1/groups` | [`GroupSpec`] → `{}` |
//! | `POST /v1/groups/NAME/desired` | `{"desired": N}` → `{}` |
//! | `POST /v1/groups/NAME/refresh` | [`RefreshSpec`] → `{"id"}`: every instance is replaced |
//! | `POST /v1/instances` | [`InstanceSpec`] → `{"id"}` |
//! | `POST /v1/instances/ID/terminate` | → `{}`: asked to shut down, then gone |
//! | `POST /v1/instances/ID/kill` | → `{}`: without power at once |
//! | `POST /v1/instances/ID/interrupt` | `{"action": "terminate", "inMs": N}` → `{}`: a spot instance is told of its end, which comes then |
//! | `POST /v1/instances/ID/rebalance` | → `{}`: a spot instance is told that it is at risk |
//! | `POST /v1/instances/ID/maintenance` | [`MaintenanceSpec`] → `{"id"}`: an event is scheduled |
//! | `DELETE /v1/instances/ID/maintenance/EVENT` | → `{}`: it is called off |
//! | `POST /v1/instances/ID/terminate-in-group` | `{"decrement": B}` → `{}`: its group ends it, with its hooks |
//! | `POST /v1/instances/ID/imds` | [`ImdsFaults`] → `{}`; `{}` clears |
//! | `POST /v1/instances/ID/imds/expire-tokens` | → `{}` |
//! | `POST /v1/balancers` | [`BalancerSpec`] → `{"pool"}`: a network one's target group, or the key of a classic one's instances |
//! | `DELETE /v1/balancers/NAME` | → `{}`: it goes away; a target group stays |
//! | `POST /v1/groups/NAME/pools` | `{"pool"}` → `{}`: the group registers its instances with it |
//! | `POST /v1/volumes` | [`VolumeSpec`] → `{"id"}` |
//! | `POST /v1/volumes/ID/lose` | → `{}`: gone with its data |
//! | `POST /v1/volumes/ID/delete-on-termination` | `{"delete": B}` → `{}`: whether it goes with its instance |
//! | `POST /v1/buckets` | `{"name"}` → `{}` |
//! | `POST /v1/access-rules` | [`AccessRule`] → `{}` |
//! | `POST /v1/zones/NAME/stop`, `…/start` | → `{}` |
//! | `POST /v1/faults` | [`FaultSpec`] → `{"id"}` |
//! | `DELETE /v1/faults`, `DELETE /v1/faults/ID` | → `{}` |
//! | `POST /v1/clock` | `{"offsetMs": N}` → `{}`: the region's clock against the machine's |

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::server::Shared;
use super::world::{
    AccessRule, BalancerSpec, FaultSpec, GroupSpec, ImdsFaults, InstanceSpec, MaintenanceSpec, RefreshSpec,
    Refusal, SpotAction, VolumeSpec, World,
};

/// The longest that an event is waited for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

type Answer = Response<Body>;
type At = State<Shared>;

pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/state", get(|State(s): At| async move { reply(Ok(s.change(|w| state(w)))) }))
        .route("/v1/events", get(events))
        .route("/v1/calls", get(calls))
        .merge(machines())
        .merge(endings())
        .merge(balancers())
        .merge(stores())
        .merge(weather())
        .with_state(shared)
}

/// Groups and instances.
fn machines() -> Router<Shared> {
    Router::new()
        .route(
            "/v1/groups",
            post(|State(s): At, body: Bytes| async move {
                with_body(&s, &body, |w, spec: GroupSpec| w.create_group(spec).map(done))
            }),
        )
        .route(
            "/v1/groups/{name}/desired",
            post(|State(s): At, Path(name): Path<String>, body: Bytes| async move {
                with_body(&s, &body, |w, d: Desired| w.set_desired_capacity(&name, d.desired).map(done))
            }),
        )
        .route(
            "/v1/instances",
            post(|State(s): At, body: Bytes| async move {
                with_body(&s, &body, |w, spec: InstanceSpec| {
                    w.run_instance(spec).map(|id| json!({ "id": id }))
                })
            }),
        )
        .route(
            "/v1/instances/{id}/terminate",
            post(|State(s): At, Path(id): Path<String>| async move {
                reply(s.change(|w| w.terminate_instance(&id)).map(done))
            }),
        )
        .route(
            "/v1/instances/{id}/kill",
            post(|State(s): At, Path(id): Path<String>| async move {
                reply(s.change(|w| w.kill_instance(&id)).map(done))
            }),
        )
        .route(
            "/v1/instances/{id}/imds",
            post(|State(s): At, Path(id): Path<String>, body: Bytes| async move {
                with_body(&s, &body, |w, faults: ImdsFaults| w.set_imds_faults(&id, &faults).map(done))
            }),
        )
        .route(
            "/v1/instances/{id}/imds/expire-tokens",
            post(|State(s): At, Path(id): Path<String>| async move {
                s.change(|w| w.expire_metadata_tokens(&id));
                reply(Ok(json!({})))
            }),
        )
}

/// How instances are told of their end, and come to it.
fn endings() -> Router<Shared> {
    Router::new()
        .route(
            "/v1/groups/{name}/refresh",
            post(|State(s): At, Path(name): Path<String>, body: Bytes| async move {
                with_body(&s, &body, |w, spec: RefreshSpec| {
                    w.start_refresh(&name, spec).map(|id| json!({ "id": id }))
                })
            }),
        )
        .route(
            "/v1/instances/{id}/interrupt",
            post(|State(s): At, Path(id): Path<String>, body: Bytes| async move {
                with_body(&s, &body, |w, given: Interrupt| {
                    w.interrupt_spot(&id, given.action, given.in_ms).map(done)
                })
            }),
        )
        .route(
            "/v1/instances/{id}/rebalance",
            post(|State(s): At, Path(id): Path<String>| async move {
                reply(s.change(|w| w.recommend_rebalance(&id)).map(done))
            }),
        )
        .route(
            "/v1/instances/{id}/maintenance",
            post(|State(s): At, Path(id): Path<String>, body: Bytes| async move {
                with_body(&s, &body, |w, spec: MaintenanceSpec| {
                    w.schedule_maintenance(&id, &spec).map(|id| json!({ "id": id }))
                })
            }),
        )
        .route(
            "/v1/instances/{id}/maintenance/{event}",
            delete(|State(s): At, Path((id, event)): Path<(String, String)>| async move {
                reply(s.change(|w| w.cancel_maintenance(&id, &event)).map(done))
            }),
        )
        .route(
            "/v1/instances/{id}/terminate-in-group",
            post(|State(s): At, Path(id): Path<String>, body: Bytes| async move {
                with_body(&s, &body, |w, given: Terminate| {
                    w.terminate_in_group(&id, given.decrement).map(done)
                })
            }),
        )
        .route(
            "/v1/volumes/{id}/delete-on-termination",
            post(|State(s): At, Path(id): Path<String>, body: Bytes| async move {
                with_body(&s, &body, |w, given: Delete| {
                    w.set_delete_on_termination(&id, given.delete).map(done)
                })
            }),
        )
}

/// Load balancers.
fn balancers() -> Router<Shared> {
    Router::new()
        .route(
            "/v1/balancers",
            post(|State(s): At, body: Bytes| async move {
                with_body(&s, &body, |w, spec: BalancerSpec| {
                    w.create_balancer(spec).map(|pool| json!({ "pool": pool }))
                })
            }),
        )
        .route(
            "/v1/balancers/{name}",
            delete(|State(s): At, Path(name): Path<String>| async move {
                reply(s.change(|w| w.delete_balancer(&name)).map(done))
            }),
        )
        .route(
            "/v1/groups/{name}/pools",
            post(|State(s): At, Path(name): Path<String>, body: Bytes| async move {
                with_body(&s, &body, |w, given: GivenPool| w.attach_pool(&name, &given.pool).map(done))
            }),
        )
}

/// Volumes and buckets.
fn stores() -> Router<Shared> {
    Router::new()
        .route(
            "/v1/volumes",
            post(|State(s): At, body: Bytes| async move {
                with_body(&s, &body, |w, spec: VolumeSpec| {
                    w.create_volume(spec, None).map(|id| json!({ "id": id }))
                })
            }),
        )
        .route(
            "/v1/volumes/{id}/lose",
            post(|State(s): At, Path(id): Path<String>| async move {
                reply(s.change(|w| w.lose_volume(&id)).map(done))
            }),
        )
        .route(
            "/v1/buckets",
            post(|State(s): At, body: Bytes| async move {
                with_body(&s, &body, |w, bucket: Bucket| {
                    w.create_bucket(&bucket.name);
                    Ok(json!({}))
                })
            }),
        )
        .route(
            "/v1/access-rules",
            post(|State(s): At, body: Bytes| async move {
                with_body(&s, &body, |w, rule: AccessRule| {
                    w.add_access_rule(rule);
                    Ok(json!({}))
                })
            }),
        )
}

/// Zones, faults and the clock.
fn weather() -> Router<Shared> {
    Router::new()
        .route(
            "/v1/zones/{name}/stop",
            post(|State(s): At, Path(name): Path<String>| async move {
                reply(s.change(|w| w.stop_zone(&name)).map(done))
            }),
        )
        .route(
            "/v1/zones/{name}/start",
            post(|State(s): At, Path(name): Path<String>| async move {
                reply(s.change(|w| w.start_zone(&name)).map(done))
            }),
        )
        .route(
            "/v1/faults",
            post(|State(s): At, body: Bytes| async move {
                with_body(&s, &body, |w, spec: FaultSpec| Ok(json!({ "id": w.add_fault(spec) })))
            })
            .delete(|State(s): At| async move {
                s.change(World::clear_faults);
                reply(Ok(json!({})))
            }),
        )
        .route(
            "/v1/faults/{id}",
            delete(|State(s): At, Path(id): Path<u64>| async move {
                let missing = || Refusal::new(404, "NotFound", format!("there is no fault {id}"));
                reply(if s.change(|w| w.clear_fault(id)) { Ok(json!({})) } else { Err(missing()) })
            }),
        )
        .route(
            "/v1/clock",
            post(|State(s): At, body: Bytes| async move {
                reply(parse::<Clock>(&body).map(|clock| {
                    s.set_clock_offset(clock.offset_ms);
                    json!({})
                }))
            }),
        )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Desired {
    desired: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Interrupt {
    #[serde(default)]
    action: SpotAction,
    in_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Terminate {
    decrement: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    delete: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenPool {
    pool: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Clock {
    offset_ms: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Since {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn events(State(shared): At, Query(since): Query<Since>) -> Answer {
    let wait = Duration::from_millis(since.wait_ms).min(LONGEST_WAIT);
    let events = shared.events_after(since.after, wait).await;
    reply(Ok(json!(events)))
}

async fn calls(State(shared): At, Query(since): Query<Since>) -> Answer {
    reply(Ok(json!(shared.with(|world| world.calls_after(since.after)))))
}

fn done(_: impl Sized) -> Value {
    json!({})
}

fn state(world: &World) -> Value {
    let view = world.view();
    let buckets = world.buckets().iter().map(|(name, objects)| {
        let objects: serde_json::Map<String, Value> = objects
            .iter()
            .map(|(key, o)| {
                let mut value = json!(o);
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("size".into(), json!(o.body.len()));
                }
                (key.clone(), value)
            })
            .collect();
        (name.clone(), Value::Object(objects))
    });
    let faults = world.faults().map(|(id, fault)| {
        let mut value = json!(fault);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("id".into(), json!(id));
        }
        value
    });
    json!({
        "region": world.config().region,
        "nowMs": world.now(),
        "zones": world.zones(),
        "instances": view.instances.values().collect::<Vec<_>>(),
        "volumes": view.volumes.values().collect::<Vec<_>>(),
        "groups": view.groups.values().collect::<Vec<_>>(),
        "balancers": view.balancers.values().collect::<Vec<_>>(),
        "pools": view.pools.values().collect::<Vec<_>>(),
        "objects": buckets.collect::<serde_json::Map<String, Value>>(),
        "faults": faults.collect::<Vec<_>>(),
        "sequence": world.last_event(),
    })
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal::bad("Malformed", e.to_string()))
}

fn with_body<T: DeserializeOwned>(
    shared: &Shared,
    body: &Bytes,
    change: impl FnOnce(&mut World, T) -> Result<Value, Refusal>,
) -> Answer {
    reply(parse(body).and_then(|given| shared.change(|world| change(world, given))))
}

fn reply(result: Result<Value, Refusal>) -> Answer {
    let (status, value) = match result {
        Ok(value) => (200, value),
        Err(r) => (r.status, json!({ "code": r.code, "message": r.message })),
    };
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
