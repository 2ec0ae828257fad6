-- What uninstall has to wait for, in words; '' when it is nothing. A run that nobody has started, or that nobody walks
-- and nobody is there to take up, is cancelled. A lock is never deleted: its lease expires.
local GRACE_MS = 10000  -- a web process without a queue takes a run up again within SWEEP_SECONDS
local active = call('GET', K.active)
local status = active and call('HGET', K.run .. active, 'status')
if status == 'running' then
  local workers = C.use_queue == 1 and call('ZCOUNT', K.workers, ms(now - C.worker_ms), '+inf') or 0
  local walkers = call('ZCOUNT', key(active, 'walkers'), ms(now - GRACE_MS), '+inf')
  if workers + walkers > 0 or call('GET', K.lock) == active then
    local r = K.run .. active
    return string.format('run %s: %d of %d batches are done', active, number(r, 'done'), number(r, 'pages'))
  end
end
if status == 'queued' or status == 'running' then finish(active, 'cancelled', 'uninstalled') end
return call('EXISTS', K.lock) == 1 and 'the lock to expire' or ''
