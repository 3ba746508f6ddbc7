//! CloudWatch: figures of this machine, put under one namespace.
//!
//! What must not live here: which figures, and what they mean.
//!
//! Source: PutMetricData, Amazon CloudWatch API reference.

use aws_config::SdkConfig;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};

use super::{Cause, retries};
use crate::model::Role;

/// CloudWatch did not take the figures.
#[derive(Debug, thiserror::Error)]
#[error("CloudWatch PutMetricData{}", if source.is_denied() { " (allow cloudwatch:PutMetricData to the instance's role)" } else { "" })]
pub struct CloudWatchError {
    /// Why.
    #[source]
    pub source: Cause,
}

impl CloudWatchError {
    /// Whether the same call may well succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        self.source.is_retryable()
    }
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nothing: yes is 1 and no is 0, or days.
    Count,
    /// Seconds.
    Seconds,
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// The metric's name.
    pub name: &'static str,
    /// What it is.
    pub value: f64,
    /// What it counts.
    pub unit: Unit,
}

/// CloudWatch, in one region.
#[derive(Debug, Clone)]
pub struct CloudWatch {
    client: Client,
}

impl CloudWatch {
    pub(super) fn new(sdk: &SdkConfig, role: Role) -> Self {
        let mut config = aws_sdk_cloudwatch::config::Builder::from(sdk);
        config.set_retry_partition(retries::quota(role, retries::Service::CloudWatch));
        Self { client: Client::from_conf(config.build()) }
    }

    /// Puts all figures of a moment, in milliseconds since 1970, by one call. Each has these dimensions.
    pub async fn put(
        &self,
        namespace: &str,
        dimensions: &[(&str, &str)],
        figures: &[Figure],
        at: i64,
    ) -> Result<(), CloudWatchError> {
        let dimensions: Vec<Dimension> = dimensions
            .iter()
            .map(|(name, value)| Dimension::builder().name(*name).value(*value).build())
            .collect();
        let datum = |figure: &Figure| {
            MetricDatum::builder()
                .metric_name(figure.name)
                .set_dimensions(Some(dimensions.clone()))
                .timestamp(DateTime::from_millis(at))
                .value(figure.value)
                .unit(match figure.unit {
                    Unit::Count => StandardUnit::Count,
                    Unit::Seconds => StandardUnit::Seconds,
                })
                .build()
        };
        self.client
            .put_metric_data()
            .namespace(namespace)
            .set_metric_data(Some(figures.iter().map(datum).collect()))
            .send()
            .await
            .map(drop)
            .map_err(|error| CloudWatchError { source: Cause::new(&error) })
    }
}
