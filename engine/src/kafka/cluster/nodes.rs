//! DescribeCluster: which nodes there are.

use highwater_protocol::ErrorCode;
use highwater_protocol::messages::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse, StrBytes,
};

use super::metadata::broker_id;
use super::view::View;

/// Kafka's number of endpoints for clients.
const BROKERS: i8 = 1;

/// The nodes.
pub(super) fn describe(request: &DescribeClusterRequest, view: &View) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(view.config.cluster_id.clone()))
        .with_endpoint_type(request.endpoint_type)
        .with_controller_id(broker_id(view.controller()));
    if request.endpoint_type != BROKERS {
        let message = "controllers have no endpoints of their own";
        return response
            .with_error_code(ErrorCode::UnsupportedEndpointType.code())
            .with_error_message(Some(StrBytes::from_static_str(message)));
    }
    let brokers = view.live_nodes().map(|node| {
        let listener = &node.listeners[0];
        DescribeClusterBroker::default()
            .with_broker_id(broker_id(Some(node.node)))
            .with_host(StrBytes::from_string(listener.host.clone()))
            .with_port(i32::from(listener.port))
    });
    response.with_brokers(brokers.collect())
}
