//! A request whose token was rejected is retried once, if there is another token.

use std::sync::{Arc, Mutex};

use futures::{
    channel::oneshot,
    executor::block_on,
    future::{FutureExt, ready},
};
use http::{HeaderName, Method, Request, Response, StatusCode, Version};
use tower::{BoxError, Layer, Service, ServiceBuilder, retry::RetryLayer};
use tower_bearer::{
    BearerAuthLayer, BearerToken, CallerDriven, ErrorKind, InvalidToken, RefreshingToken,
    RefreshingTokenBuilder, RetryRejected, RotatingToken, SourceError, SourceErrorKind,
    StaticToken, TokenFuture, TokenReplaced, TokenSource, UseToken,
};

use crate::support::{
    Asking, Counting, Manual, Req, Res, Server, Task, get, make_ready, ours, poll,
    retrying::{URL, always_another, old_then_new, takes},
    send, status, token, values,
};

fn retrying<T: TokenSource + 'static>(
    source: T,
    server: &Server,
) -> impl Service<Req, Response = Res, Error = BoxError> + Clone {
    ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(BearerAuthLayer::new(source).retry_rejected())
        .service(server.clone())
}

#[test]
fn a_rejected_request_is_retried_with_the_other_token() {
    let server = takes("new");
    let response = send(&mut retrying(old_then_new(), &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.authorizations(), ["Bearer old", "Bearer new"]);
}

#[test]
fn a_response_that_was_held_back_gives_an_error_if_it_is_polled_after_its_end() {
    let mut service = BearerAuthLayer::new(old_then_new())
        .retry_rejected()
        .layer(takes("new"));
    make_ready(&mut service);
    let mut request = Task::new(service.call(get(URL)));
    request.finish().unwrap();
    for _ in 0..2 {
        let error = request.finish().unwrap_err();
        assert_eq!(ours(&error).kind(), ErrorKind::Finished);
    }
}

#[test]
fn a_request_is_retried_once_and_no_more() {
    let server = takes("none of them");
    let mut service = retrying(always_another(), &server);
    let response = send(&mut service, get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    // The layer asked for another token and got `1`. Then the retry asked the source again and got `2`.
    assert_eq!(server.authorizations(), ["Bearer 0", "Bearer 2"]);

    // The next request has a retry of its own.
    send(&mut service, get(URL)).unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn the_retry_is_the_request_that_was_rejected_but_for_its_token() {
    let server = takes("new");
    let request = Request::put("https://api.example.com/path?query")
        .version(Version::HTTP_2)
        .header("x-first", "1")
        .header("authorization", "Bearer own")
        .extension("kept")
        .body("body".to_owned())
        .unwrap();
    send(&mut retrying(old_then_new(), &server), request).unwrap();
    let [first, second] = &*server.seen() else {
        panic!("two requests")
    };
    assert_eq!(values(first, "authorization"), ["Bearer old"]);
    assert_eq!(values(second, "authorization"), ["Bearer new"]);
    for request in [first, second] {
        assert_eq!(request.method(), Method::PUT);
        assert_eq!(request.uri(), "https://api.example.com/path?query");
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(values(request, "x-first"), ["1"]);
        assert_eq!(request.extensions().get(), Some(&"kept"));
        assert_eq!(request.body(), "body");
    }
}

#[test]
fn without_another_token_the_response_is_handed_on_and_nothing_is_retried() {
    let unavailable = || SourceError::new(SourceErrorKind::Failed, "none");
    let old = token("old");
    let fails = Asking(move || {
        if old.is_rejected() {
            return TokenFuture::boxed(ready(Err(unavailable())));
        }
        old.clone().into()
    });
    let server = takes("new");
    let response = send(&mut retrying(fails, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.seen().len(), 1);

    let server = takes("new");
    let only = StaticToken::new(token("old"));
    let response = send(&mut retrying(only, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn another_token_that_was_rejected_as_well_is_not_sent() {
    let (old, other) = (token("old"), token("other"));
    other.reject();
    let source = Asking(move || {
        let token = if old.is_rejected() { &other } else { &old };
        token.clone().into()
    });
    let server = takes("new");
    let response = send(&mut retrying(source, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.authorizations(), ["Bearer old"]);
}

/// Some sources read their token anew at each call.
#[test]
fn the_same_text_in_a_new_token_is_not_another_token() {
    let server = takes("new");
    let again = Asking(|| token("old").into());
    let response = send(&mut retrying(again, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.authorizations(), ["Bearer old"]);
}

#[test]
fn a_request_that_carries_its_own_token_is_not_retried() {
    let server = takes("new");
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(
            BearerAuthLayer::new(old_then_new())
                .keep_existing()
                .retry_rejected(),
        )
        .service(server.clone());
    let mut request = get(URL);
    let own = "Bearer own".parse().unwrap();
    request.headers_mut().insert("authorization", own);
    let response = send(&mut service, request).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.authorizations(), ["Bearer own"]);
}

#[test]
fn a_response_that_blames_something_else_is_not_retried() {
    let server = Server::answering(|_| {
        let mut response = status(StatusCode::UNAUTHORIZED);
        let challenge = "Bearer error=\"insufficient_scope\"".parse().unwrap();
        response.headers_mut().insert("www-authenticate", challenge);
        response
    });
    send(&mut retrying(old_then_new(), &server), get(URL)).unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_request_whose_body_cannot_be_cloned_is_not_retried() {
    let server = takes("new");
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::with_clone(|_: &Req| None)))
        .layer(BearerAuthLayer::new(old_then_new()).retry_rejected())
        .service(server.clone());
    let response = send(&mut service, get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn without_the_setting_the_response_is_not_held_back_and_nothing_is_retried() {
    let server = takes("new");
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(BearerAuthLayer::new(old_then_new()))
        .service(server.clone());
    let response = send(&mut service, get(URL)).unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_none());
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn the_retry_waits_for_the_fetch_of_the_other_token() {
    let (come, comes) = oneshot::channel();
    let comes = comes.shared();
    let old = token("old");
    let source = Asking(move || {
        if !old.is_rejected() {
            return old.clone().into();
        }
        TokenFuture::boxed(comes.clone().map(|came: Result<(), _>| {
            came.unwrap();
            Ok(token("new"))
        }))
    });
    let server = takes("new");
    let mut service = retrying(source, &server);
    let mut request = Task::waiting(service.call(get(URL)));
    assert_eq!(server.seen().len(), 1);
    come.send(()).unwrap();
    assert_eq!(request.finish().unwrap().status(), StatusCode::OK);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_caller_who_leaves_while_the_response_is_held_back_loses_nothing_for_others() {
    let server = takes("new");
    let source = RotatingToken::new(token("old"));
    let mut service = BearerAuthLayer::new(source.clone())
        .retry_rejected()
        .layer(server);
    drop(service.call(get(URL)));
    source.rotate(token("new"));
    let response = send(&mut service, get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// Gives these tokens in turn.
fn of(tokens: &'static [&str]) -> RefreshingTokenBuilder {
    let mut tokens = tokens.iter();
    RefreshingToken::builder(move || {
        let token = *tokens.next().unwrap();
        async move { BearerToken::new(token) }
    })
    .runtime(CallerDriven::new())
}

/// A request that was made for one account must not go out as another account.
#[test]
fn a_request_whose_account_is_signed_out_before_the_401_is_not_retried() {
    for sent_with_an_older_token in [false, true] {
        let source = of(&["alice", "alice-2", "bob"]).build();
        block_on(source.token()).unwrap();
        let signs_out = source.clone();
        let server = Server::answering(move |request| {
            if values(request, "authorization") == ["Bearer alice"] {
                if sent_with_an_older_token {
                    block_on(signs_out.refresh_now()).unwrap();
                }
                signs_out.invalidate();
                return status(StatusCode::UNAUTHORIZED);
            }
            status(StatusCode::OK)
        });
        let source = Counting::new(source);
        let mut service = retrying(source.clone(), &server);
        let response = send(&mut service, get(URL)).unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(server.authorizations(), ["Bearer alice"]);
        assert!(response.extensions().get::<TokenReplaced>().is_none());
        assert_eq!(source.asked(), 1, "nobody asks for another token");
    }
}

/// The sign-out comes while the source looks for another token. The source of a program may wait for something
/// else before it asks the source that was signed out.
#[test]
fn a_response_that_is_held_back_when_its_account_is_signed_out_is_not_worth_a_retry() {
    let account = of(&["alice"]).build();
    let manual = Manual::default();
    let mut service = BearerAuthLayer::new(manual.clone())
        .retry_rejected()
        .layer(takes("bob"));
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URL)));
    manual.answer(block_on(account.token()));
    assert!(request.poll().is_pending());
    account.invalidate();
    manual.answer(Ok(token("bob")));
    let response = request.finish().unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.extensions().get::<TokenReplaced>().is_none());
}

/// The fetch function keeps a token, and a fetch that began before the sign-out gives this token once more.
#[test]
fn a_request_whose_token_comes_again_after_a_sign_out_is_not_retried() {
    let (come, comes) = oneshot::channel::<()>();
    let (alice, mut number, mut comes) = (token("alice"), 0, Some(comes));
    let source = RefreshingToken::builder(move || {
        number += 1;
        let (number, alice) = (number, alice.clone());
        let comes = comes.take_if(|_| number == 3);
        async move {
            if let Some(comes) = comes {
                comes.await.unwrap();
            }
            Ok::<_, InvalidToken>(match number {
                1 | 3 => alice,
                2 => token("alice-2"),
                _ => token("bob"),
            })
        }
    })
    .runtime(CallerDriven::new())
    .build();
    block_on(source.token()).unwrap();
    let (asked, come) = (source.clone(), Mutex::new(Some(come)));
    let server = Server::answering(move |_| {
        if let Some(come) = come.lock().unwrap().take() {
            block_on(asked.refresh_now()).unwrap();
            let mut third = asked.refresh_now();
            assert!(poll(&mut third).is_pending());
            asked.invalidate();
            come.send(()).unwrap();
            let bob = block_on(asked.token()).unwrap();
            assert_eq!(bob.expose_secret(), "bob");
        }
        status(StatusCode::UNAUTHORIZED)
    });
    let response = send(&mut retrying(source, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.authorizations(), ["Bearer alice"]);
}

/// The sign-out comes after the layer has said that there is another token. The retry then has its token at hand,
/// or waits for the inner service or for its token.
#[test]
fn a_retry_whose_account_is_signed_out_before_it_is_sent_is_not_sent() {
    #[derive(Clone, Copy, PartialEq)]
    enum Token {
        AtHand,
        FetchedAtOnce,
        WaitedFor,
    }

    for (then, of_a_tenant) in [
        (Token::AtHand, false),
        (Token::AtHand, true),
        (Token::FetchedAtOnce, false),
        (Token::FetchedAtOnce, true),
        (Token::WaitedFor, false),
        (Token::WaitedFor, true),
    ] {
        let (come, comes) = oneshot::channel::<()>();
        let mut comes = Some(comes);
        let mut accounts = ["alice", "alice-2", "bob"].into_iter();
        let source = RefreshingToken::builder(move || {
            let account = accounts.next().unwrap();
            let comes = comes.take_if(|_| account == "bob" && then == Token::WaitedFor);
            async move {
                if let Some(comes) = comes {
                    comes.await.unwrap();
                }
                BearerToken::new(account)
            }
        })
        .runtime(CallerDriven::new())
        .build();
        block_on(source.token()).unwrap();
        let signs_out = source.clone();
        let server = takes("none of them");
        let mut request = get(URL);
        let layers_own: Arc<dyn TokenSource> = if of_a_tenant {
            request.extensions_mut().insert(UseToken::new(source));
            Arc::new(StaticToken::new(token("ours")))
        } else {
            Arc::new(source)
        };
        let layered = BearerAuthLayer::new(layers_own)
            .retry_rejected()
            .layer(server.clone());
        let mut service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryRejected::new()))
            .map_response(move |response: Res| {
                if response.extensions().get::<TokenReplaced>().is_some() {
                    signs_out.invalidate();
                    if then == Token::AtHand {
                        block_on(signs_out.token()).unwrap();
                    }
                }
                response
            })
            .service(layered);
        make_ready(&mut service);
        let mut request = Task::new(service.call(request));
        if then == Token::WaitedFor {
            assert!(request.poll().is_pending());
            come.send(()).unwrap();
        }
        let error = request.finish().unwrap_err();
        let error = ours(&error).source_error().unwrap();
        assert_eq!(error.kind(), SourceErrorKind::Invalidated);
        assert_eq!(server.authorizations(), ["Bearer alice"]);
    }
}

#[test]
fn a_sign_out_stops_the_retry_also_if_another_source_hands_out_the_same_token() {
    for with_the_first_source in [true, false] {
        let alice = token("alice");
        let sources = [(); 2].map(|()| of(&["bob"]).first_token(alice.clone()).build());
        let [first, second] = sources;
        let (source, other) = if with_the_first_source {
            (first, second)
        } else {
            (second, first)
        };
        let signs_out = source.clone();
        let server = Server::answering(move |_| {
            signs_out.invalidate();
            status(StatusCode::UNAUTHORIZED)
        });
        let mut service = retrying(source, &server);
        let response = send(&mut service, get(URL)).unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(server.authorizations(), ["Bearer alice"]);
        drop(other);
    }
}

/// A program may sign out by a new source in place of the old source.
#[test]
fn a_sign_out_stops_the_retry_also_if_the_source_is_gone() {
    for new_source_has_the_old_token in [false, true] {
        let slot = Arc::new(Mutex::new(of(&["alice"]).build()));
        let asked = Arc::clone(&slot);
        let source = Asking(move || asked.lock().unwrap().token());
        let alice = block_on(source.token()).unwrap();
        let server = Server::answering(move |_| {
            let mut slot = slot.lock().unwrap();
            slot.invalidate();
            // The old source is dropped before another source gets its token.
            *slot = of(&["bob"]).build();
            if new_source_has_the_old_token {
                *slot = of(&["bob"]).first_token(alice.clone()).build();
            }
            status(StatusCode::UNAUTHORIZED)
        });
        let mut service = retrying(source, &server);
        let response = send(&mut service, get(URL)).unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(server.authorizations(), ["Bearer alice"]);
    }
}

/// The fetch function keeps a token, and gives this token once more after the sign-out.
#[test]
fn a_token_that_is_fetched_again_after_a_sign_out_is_a_token_of_the_new_account() {
    let mut tokens = ["alice", "alice-2", "alice", "alice-3"].map(token);
    tokens[2] = tokens[0].clone();
    let mut tokens = tokens.into_iter();
    let source =
        RefreshingToken::builder(move || ready(Ok::<_, InvalidToken>(tokens.next().unwrap())))
            .runtime(CallerDriven::new())
            .build();
    block_on(source.token()).unwrap();
    block_on(source.refresh_now()).unwrap();
    source.invalidate();
    block_on(source.token()).unwrap();
    let server = takes("alice-3");
    let response = send(&mut retrying(source, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.authorizations(), ["Bearer alice", "Bearer alice-3"]);
}

/// Each of two layers has replaced its token. The retry carries both new tokens.
#[test]
fn a_retry_for_two_tokens_is_not_sent_if_either_account_is_signed_out() {
    for lower_signs_out in [false, true] {
        let upper = of(&["key", "key-2", "key-of-bob"]).build();
        let lower = of(&["alice", "alice-2", "bob"]).build();
        for source in [&upper, &lower] {
            block_on(source.token()).unwrap();
        }
        let signs_out = if lower_signs_out { &lower } else { &upper }.clone();
        let server = takes("none of them");
        let header = HeaderName::from_static("x-api-key");
        let mut service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryRejected::new()))
            .map_response(move |response: Res| {
                assert!(response.extensions().get::<TokenReplaced>().is_some());
                signs_out.invalidate();
                response
            })
            .layer(
                BearerAuthLayer::new(upper)
                    .header_name(header)
                    .retry_rejected(),
            )
            .layer(BearerAuthLayer::new(lower).retry_rejected())
            .service(server.clone());
        let error = send(&mut service, get(URL)).unwrap_err();
        let error = ours(&error).source_error().unwrap();
        assert_eq!(error.kind(), SourceErrorKind::Invalidated);
        assert_eq!(server.authorizations(), ["Bearer alice"]);
    }
}

#[test]
fn a_policy_of_ones_own_can_look_at_the_extension() {
    let server = takes("new");
    let layer = BearerAuthLayer::new(old_then_new()).retry_rejected();
    let mut service = layer.layer(server);
    let response: Response<String> = send(&mut service, get(URL)).unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_some());
}

#[test]
fn a_request_that_the_users_rule_calls_rejected_is_retried() {
    let server = Server::answering(|request| {
        let good = values(request, "authorization") == ["Bearer new"];
        status(if good {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        })
    });
    let layer = BearerAuthLayer::new(old_then_new())
        .retry_rejected()
        .rejected_when(|status, _, _| status == StatusCode::FORBIDDEN);
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(layer)
        .service(server.clone());
    let response = send(&mut service, get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.authorizations(), ["Bearer old", "Bearer new"]);
}

#[test]
fn a_rejected_request_of_a_tenant_is_retried_with_the_tenants_other_token() {
    for waits in [false, true] {
        let server = takes("new");
        let ours = Counting::new(StaticToken::new(token("ours")));
        let mut service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryRejected::new()))
            .layer(BearerAuthLayer::new(ours.clone()).retry_rejected())
            .service(server.clone());
        let source = old_then_new();
        let tenant = Asking(move || {
            let result = source.token().now_or_never().unwrap();
            if waits {
                TokenFuture::boxed(ready(result))
            } else {
                TokenFuture::ready(result)
            }
        });
        let mut request = get(URL);
        request.extensions_mut().insert(UseToken::new(tenant));
        let response = send(&mut service, request).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(server.authorizations(), ["Bearer old", "Bearer new"]);
        assert_eq!(ours.asked(), 0, "the layer's source has no part in it");
    }
}

#[test]
fn a_tenants_token_is_retried_only_if_the_layer_retries() {
    let server = takes("new");
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(BearerAuthLayer::new(StaticToken::new(token("ours"))))
        .service(server.clone());
    let mut request = get(URL);
    request
        .extensions_mut()
        .insert(UseToken::new(old_then_new()));
    let response = send(&mut service, request).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.authorizations(), ["Bearer old"]);
}
