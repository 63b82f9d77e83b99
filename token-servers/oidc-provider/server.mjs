// An authorization server (the npm package oidc-provider), and an API that takes its tokens.
//
//     node server.mjs [PORT]
//
// The server listens on loopback, prints `listening PORT`, and keeps everything in memory. It ends when its
// standard input ends, so that a test that is killed leaves no server behind. The paths under /test are for
// the tests only.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import Provider from 'oidc-provider';

const SECRET = 's3cret with a space, + and %';
const BRIEF = 5;
const LONG = 600;

const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
const machine = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] };
const user = {
  client_secret: SECRET,
  redirect_uris: ['https://client.example/callback'],
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token'],
};
const lifetime = (_context, _token, client) => (client.clientId.startsWith('brief') ? BRIEF : LONG);

// The URL is the issuer that tokens name. Nobody sends a request to this URL.
const provider = new Provider('http://127.0.0.1', {
  clients: [
    { ...machine, client_id: 'brief machine', client_secret: SECRET },
    { ...machine, client_id: 'long machine', client_secret: SECRET },
    {
      ...machine,
      client_id: 'post',
      client_secret: SECRET,
      token_endpoint_auth_method: 'client_secret_post',
    },
    {
      ...machine,
      client_id: 'key',
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks: { keys: [{ ...(await exportJWK(publicKey)), alg: 'ES256', use: 'sig' }] },
    },
    { ...user, client_id: 'brief user' },
    { ...user, client_id: 'long user' },
  ],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
  },
  findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  rotateRefreshToken: true,
  scopes: ['offline_access', 'read'],
  ttl: {
    AccessToken: lifetime,
    ClientCredentials: lifetime,
    Grant: 86_400,
    RefreshToken: 86_400,
  },
});

// The number of token requests that were answered with each status.
const tokenRequests = {};

// A refresh token, as a user would have got it by signing in.
async function signIn(clientId) {
  const grant = new provider.Grant({ accountId: 'alice', clientId });
  grant.addOIDCScope('offline_access read');
  const token = new provider.RefreshToken({
    accountId: 'alice',
    client: await provider.Client.find(clientId),
    grantId: await grant.save(),
    gty: 'authorization_code',
    scope: 'offline_access read',
  });
  return token.save();
}

function assertion(audience) {
  return new SignJWT({ jti: randomUUID() })
    .setProtectedHeader({ alg: 'ES256' })
    .setIssuer('key')
    .setSubject('key')
    .setAudience(audience)
    .setIssuedAt()
    .setExpirationTime('1m')
    .sign(privateKey);
}

async function isGood(authorization) {
  const token = /^Bearer (.+)$/.exec(authorization ?? '')?.[1];
  if (!token) return false;
  return Boolean(
    (await provider.ClientCredentials.find(token)) ?? (await provider.AccessToken.find(token)),
  );
}

const oauth = provider.callback();

async function respond(request, response) {
  const url = new URL(request.url, 'http://127.0.0.1');
  switch (url.pathname) {
    case '/api':
      if (await isGood(request.headers.authorization)) return response.end('hello');
      response.statusCode = 401;
      response.setHeader('WWW-Authenticate', 'Bearer realm="api", error="invalid_token"');
      return response.end();
    case '/test/counts':
      return response.end(JSON.stringify(tokenRequests));
    case '/test/sign-in':
      return response.end(await signIn(url.searchParams.get('client')));
    case '/test/assertion':
      // oidc-provider accepts its issuer as the audience.
      return response.end(await assertion(provider.issuer));
    case '/token':
      response.on('finish', () => {
        tokenRequests[response.statusCode] = (tokenRequests[response.statusCode] ?? 0) + 1;
      });
  }
  return oauth(request, response);
}

const server = createServer((request, response) => {
  respond(request, response).catch((error) => {
    console.error(error);
    response.statusCode = 500;
    response.end();
  });
});
// Keep idle connections: a request fails if the server closes its connection as the request arrives.
server.keepAliveTimeout = 0;
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(`listening ${server.address().port}`);
});
process.stdin.on('end', () => process.exit()).resume();
