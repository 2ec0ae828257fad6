-- Stop a run after the requests now in flight. in: id, by.
-- out: 'gone' | 'ended' (it was over) | 'cancelled' (it is now) | 'asked' (its walkers learn of it in their next step)
local r = K.run .. a.id
local status = call('HGET', r, 'status')
if not status then return 'gone' end
if status ~= 'queued' and status ~= 'running' then return 'ended' end
call('HSETNX', r, 'cancelled_by', a.by)
return end_if_cancelled(a.id) and 'cancelled' or 'asked'
