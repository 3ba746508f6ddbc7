//! CloudWatch's Smithy RPC v2 CBOR protocol, as far as the agent calls it: `PutMetricData`.
//!
//! Source: "Smithy RPC v2 CBOR protocol", Smithy 2.0 documentation; PutMetricData, Amazon CloudWatch API reference.

use std::collections::BTreeMap;

use aws_smithy_cbor::data::Type;
use aws_smithy_cbor::decode::{Decoder, DeserializeError};
use axum::body::Bytes;
use axum::http::request::Parts;
use serde_json::{Map, Value, json};

use super::Answer;
use crate::lab::region::world::{Measured, Refusal, World};

const OPERATION: &str = "PutMetricData";
const PATH: &str = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
/// How many figures a call may bring, and how many dimensions a figure may have.
const FIGURES: usize = 1000;
const DIMENSIONS: usize = 30;

/// A request.
pub(super) struct MetricRequest {
    body: Value,
}

impl MetricRequest {
    pub(super) fn read(parts: &Parts, body: &Bytes) -> Result<Self, Refusal> {
        let protocol = parts.headers.get("smithy-protocol").and_then(|value| value.to_str().ok());
        if protocol != Some("rpc-v2-cbor") || parts.uri.path() != PATH {
            return Err(Refusal::new(
                404,
                "UnknownOperationException",
                "this region knows PutMetricData alone",
            ));
        }
        let body = value(&mut Decoder::new(body))
            .map_err(|error| Refusal::bad("SerializationException", error.to_string()))?;
        Ok(Self { body })
    }

    pub(super) fn operation() -> &'static str {
        OPERATION
    }

    pub(super) fn resource(&self) -> String {
        self.body["Namespace"].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn answer(&self, world: &mut World) -> Result<Answer, Refusal> {
        let invalid = |message: &str| Refusal::bad("InvalidParameterValue", message);
        let namespace = self.body["Namespace"].as_str().ok_or_else(|| invalid("Namespace is required."))?;
        if namespace.starts_with("AWS/") {
            return Err(invalid("A namespace of AWS's own can't be written to."));
        }
        let data = self.body["MetricData"].as_array().ok_or_else(|| invalid("MetricData is required."))?;
        if data.is_empty() || data.len() > FIGURES {
            return Err(invalid("MetricData must have 1 to 1000 members."));
        }
        let measured: Result<Vec<Measured>, Refusal> = data
            .iter()
            .map(|datum| {
                let dimensions = datum["Dimensions"].as_array().cloned().unwrap_or_default();
                let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
                let dimensions: BTreeMap<String, String> = dimensions
                    .iter()
                    .map(|dimension| (text(&dimension["Name"]), text(&dimension["Value"])))
                    .collect();
                let is_empty = dimensions.iter().any(|(name, value)| name.is_empty() || value.is_empty());
                if is_empty || dimensions.len() > DIMENSIONS {
                    return Err(invalid("Dimensions have a name and a value, and are 30 at most."));
                }
                Ok(Measured {
                    namespace: namespace.to_owned(),
                    name: datum["MetricName"]
                        .as_str()
                        .ok_or_else(|| invalid("MetricName is required."))?
                        .to_owned(),
                    dimensions,
                    value: datum["Value"]
                        .as_f64()
                        .ok_or_else(|| invalid("this region takes a Value alone"))?,
                    unit: datum["Unit"].as_str().unwrap_or("None").to_owned(),
                    at_ms: datum["Timestamp"]
                        .as_i64()
                        .ok_or_else(|| invalid("this region wants a Timestamp"))?,
                })
            })
            .collect();
        world.measure(measured?);
        Ok(cbor(200, &Value::Object(Map::new())))
    }
}

/// The form of an error.
pub(super) fn refusal(refusal: &Refusal, request_id: &str) -> Answer {
    let body = json!({
        "__type": format!("com.amazonaws.cloudwatch#{}", refusal.code),
        "message": refusal.message,
    });
    cbor(refusal.status, &body).with("x-amzn-requestid", request_id)
}

/// An answer: a map of texts, which is all that there is to say.
fn cbor(status: u16, body: &Value) -> Answer {
    let mut encoder = aws_smithy_cbor::Encoder::new(Vec::new());
    encoder.begin_map();
    for (key, text) in body.as_object().into_iter().flatten() {
        encoder.str(key).str(text.as_str().unwrap_or_default());
    }
    encoder.end();
    let answer = Answer { body: encoder.into_writer().into(), ..Answer::empty(status) };
    answer.with("content-type", "application/cbor").with("smithy-protocol", "rpc-v2-cbor")
}

/// Any value; timestamps in milliseconds since 1970.
fn value(decoder: &mut Decoder<'_>) -> Result<Value, DeserializeError> {
    Ok(match decoder.datatype()? {
        Type::Map | Type::MapIndef => {
            let length = decoder.map()?;
            let mut members = Map::new();
            while has_more(decoder, length, members.len())? {
                let key = decoder.string()?;
                members.insert(key, value(decoder)?);
            }
            Value::Object(members)
        }
        Type::Array | Type::ArrayIndef => {
            let length = decoder.list()?;
            let mut items = Vec::new();
            while has_more(decoder, length, items.len())? {
                items.push(value(decoder)?);
            }
            Value::Array(items)
        }
        Type::String | Type::StringIndef => Value::String(decoder.string()?),
        Type::Bool => Value::Bool(decoder.boolean()?),
        Type::F16 | Type::F32 | Type::F64 => json!(decoder.double()?),
        Type::Tag => json!(decoder.timestamp()?.to_millis().unwrap_or_default()),
        Type::Null | Type::Undefined => {
            decoder.skip()?;
            Value::Null
        }
        _ => json!(decoder.long()?),
    })
}

/// Whether a list or map has another member; the end of one without a length is passed over.
fn has_more(decoder: &mut Decoder<'_>, length: Option<u64>, read: usize) -> Result<bool, DeserializeError> {
    match length {
        Some(length) => Ok((read as u64) < length),
        None if decoder.datatype()? == Type::Break => decoder.skip().map(|()| false),
        None => Ok(true),
    }
}
