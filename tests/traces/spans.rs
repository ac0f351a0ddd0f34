//! Traces at an OpenTelemetry collector.

use muse_proto::v1::{EmbedRequest, embedder_service_client::EmbedderServiceClient};
use muse_tests::{bearing, channel};
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};

use crate::{
    Services,
    collector::{Collector, ServiceSpan, hex},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const EMBED: &str = "/muse.v1.EmbedderService/Embed";
const STEPS: [(&str, &str, SpanKind); 3] = [
    ("muse-embedder", "queue", SpanKind::Internal),
    ("muse-embedder", "tokenize", SpanKind::Internal),
    ("muse-embedder", "forward", SpanKind::Internal),
];

async fn traced(more: &[(&str, &str)]) -> (Services, Collector) {
    let collector = Collector::start().await;
    let url = collector.url();
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    (Services::start(&[&settings, more].concat()).await, collector)
}

fn one<'a>(spans: &'a [ServiceSpan], service: &str, name: &str, kind: SpanKind) -> &'a ServiceSpan {
    let mut found = spans.iter().filter(|spanned| spanned.is((service, name, kind)));
    let first = found.next().unwrap_or_else(|| panic!("no {kind:?} {name} of {service} in {spans:#?}"));
    assert!(found.next().is_none(), "two {kind:?} {name} of {service}");
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn request_is_one_trace_through_all_services() {
    let (services, collector) = traced(&[]).await;
    let access = services.log_in().await;
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let bearer = format!("Bearer {access}");
    let headers = [("authorization", &*bearer), ("traceparent", &parent), ("x-request-id", "order-66")];
    let answer = services.http.send("GET", "/embed?sentence=canary", &headers, "").await;
    assert_eq!(answer.status, 200);

    let wanted = [
        ("muse-gateway", "GET /embed", SpanKind::Server),
        ("muse-gateway", EMBED, SpanKind::Client),
        ("muse-embedder", EMBED, SpanKind::Server),
    ];
    let spans = collector.trace(TRACE, &[&wanted[..], &STEPS].concat()).await;
    let edge = one(&spans, "muse-gateway", "GET /embed", SpanKind::Server);
    assert_eq!(hex(&edge.span.parent_span_id), PARENT);
    let call = one(&spans, "muse-gateway", EMBED, SpanKind::Client);
    assert_eq!(call.span.parent_span_id, edge.span.span_id);
    let served = one(&spans, "muse-embedder", EMBED, SpanKind::Server);
    assert_eq!(served.span.parent_span_id, call.span.span_id);
    for (service, step, kind) in STEPS {
        let ServiceSpan { span, .. } = one(&spans, service, step, kind);
        assert_eq!(span.parent_span_id, served.span.span_id, "{step}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{step}");
        assert!(span.end_time_unix_nano <= served.span.end_time_unix_nano, "{step}");
    }
    let attributes = [
        ("http.request.method", "GET"),
        ("http.route", "/embed"),
        ("http.response.status_code", "200"),
        ("muse.request_id", "order-66"),
        ("muse.user_class", "admin"),
    ];
    assert_eq!(attributes.map(|(key, _)| edge.attribute(key)), attributes.map(|(_, value)| value));
    assert_eq!(
        (served.attribute("muse.request_id"), served.attribute("rpc.grpc.status_code")),
        ("order-66".to_owned(), "0".to_owned())
    );
    assert!(!format!("{spans:?}").contains("canary"));
    let traced = services.lines_of("order-66");
    assert!(traced.iter().all(|line| line["span"]["trace_id"] == TRACE), "{traced:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_grpc_call_and_rejection_are_traced() {
    let (services, collector) = traced(&[]).await;
    let parent = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(services.http.log_in("admin", "wrong", &[("traceparent", &parent)]).await.status, 401);
    let wanted = [
        ("muse-gateway", "POST /login", SpanKind::Server),
        ("muse-auth", "/muse.v1.AuthService/Login", SpanKind::Server),
    ];
    let spans = collector.trace(TRACE, &wanted).await;
    let edge = one(&spans, "muse-gateway", "POST /login", SpanKind::Server);
    assert_eq!(edge.attribute("http.response.status_code"), "401");
    assert_eq!(edge.span.status.clone().unwrap_or_default().code(), StatusCode::Unset);
    let served = one(&spans, "muse-auth", "/muse.v1.AuthService/Login", SpanKind::Server);
    assert_eq!(served.attribute("rpc.grpc.status_code"), "16");

    let access = services.log_in().await;
    let mut client = EmbedderServiceClient::new(channel(services.gateway));
    let mut call = bearing(&access, EmbedRequest { sentences: vec!["a".to_owned()], ..Default::default() });
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-{PARENT}-01").parse().expect("ASCII");
    call.metadata_mut().insert("traceparent", parent);
    client.embed(call).await.expect("it is answered");
    let wanted = [
        ("muse-gateway", EMBED, SpanKind::Server),
        ("muse-gateway", EMBED, SpanKind::Client),
        ("muse-embedder", EMBED, SpanKind::Server),
    ];
    let spans = collector.trace(trace, &wanted).await;
    let edge = one(&spans, "muse-gateway", EMBED, SpanKind::Server);
    let served = one(&spans, "muse-embedder", EMBED, SpanKind::Server);
    let call = one(&spans, "muse-gateway", EMBED, SpanKind::Client);
    assert_eq!(
        (&call.span.parent_span_id, &served.span.parent_span_id),
        (&edge.span.span_id, &call.span.span_id)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_exports_the_last_spans_within_the_ratio() {
    // The exporter sends nothing before the shutdown.
    let never = ("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let (mut services, collector) = traced(&[never, ("OTEL_TRACES_SAMPLER_ARG", "0")]).await;
    let access = services.log_in().await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let bearer = format!("Bearer {access}");
    for parent in [&*unsampled, "", "00-not-a-trace-01"] {
        let headers = [("authorization", &*bearer), ("traceparent", parent)];
        assert_eq!(services.http.send("GET", "/embed?sentence=a", &headers, "").await.status, 200);
    }
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("authorization", &*bearer), ("traceparent", &*sampled)];
    assert_eq!(services.http.send("GET", "/tokenize?sentence=a", &headers, "").await.status, 200);
    services.running.stop().await;
    let wanted = [
        ("muse-gateway", "GET /tokenize", SpanKind::Server),
        ("muse-embedder", "/muse.v1.EmbedderService/Tokenize", SpanKind::Server),
        ("muse-embedder", "tokenize", SpanKind::Internal),
    ];
    collector.trace(TRACE, &wanted).await;
    let names: Vec<_> = collector.spans().into_iter().map(|spanned| spanned.span.name).collect();
    assert!(
        !names.iter().any(|name| name.contains("mbed?") || name == EMBED || name.contains("login")),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_collector_blocks_no_request() {
    let mut services = Services::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]).await;
    let access = services.log_in().await;
    for _ in 0..20 {
        assert_eq!(services.http.get("/embed?sentence=a", &access).await.status, 200);
    }
    let start = std::time::Instant::now();
    services.running.stop().await;
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
